/** What the colours of tokens stand for. */
import type { JSX } from 'preact';
import type { ColourScale, StreamInfo } from '../../../src/dashboard/view/streams.js';
import { formatNumber } from '../../../src/dashboard/view/format.js';

/** The scale with its ends, and the signs that do not depend on colour. */
export function TokenLegend({
  info,
  scale,
  hasClipped,
  hasUntrained,
}: {
  info: StreamInfo;
  scale: ColourScale;
  hasClipped: boolean;
  hasUntrained: boolean;
}): JSX.Element {
  const [low, high] = scale.ends;
  return (
    <div class="token-legend">
      <span class="num">{low}</span>
      <span class={`ramp ${scale.kind === 'signed' ? 'signed' : 'amount'}`} aria-hidden="true" />
      <span class="num">{high}</span>
      {info.unit !== null && <span class="quiet">{info.unit}</span>}
      {scale.kind === 'signed' && (
        <span class="quiet">orange below {formatNumber(info.middle ?? 0)}, blue above</span>
      )}
      {hasClipped && (
        <span class="quiet">
          <span class="token clipped-low">x</span> clipped at the lower bound,{' '}
          <span class="token clipped-high">x</span> at the upper one
        </span>
      )}
      {hasUntrained && (
        <span class="quiet">
          <span class="token untrained">x</span> not trained
        </span>
      )}
    </div>
  );
}
