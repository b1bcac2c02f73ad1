/** A completion as text, each token coloured by a number; arrow keys walk from token to token. */
import { useEffect, useMemo, useRef } from 'preact/hooks';
import type { JSX } from 'preact';
import type { SampleSequence, SampleStep } from '../../../src/dashboard/protocol.js';
import { formatNumber, visibleText, visibleToken } from '../../../src/dashboard/view/format.js';
import {
  clipSide,
  valuesOf,
  type ColourScale,
  type StreamInfo,
} from '../../../src/dashboard/view/streams.js';

interface TokenTextProps {
  readonly label: string;
  /** Unique on the page. */
  readonly id: string;
  readonly sequence: SampleSequence;
  readonly info: StreamInfo | undefined;
  readonly scale: ColourScale | undefined;
  readonly active: number | undefined;
  /** `pinned`: chosen by a click or a key, not only passed over. */
  readonly onActive: (index: number | undefined, pinned: boolean) => void;
}

/** The text. */
export function TokenText(props: TokenTextProps): JSX.Element {
  const { label, id, sequence, info, scale, active, onActive } = props;
  const box = useRef<HTMLDivElement>(null);
  // The tokens are made once: passing over them moves only the mark of the active one.
  const tokens = useMemo(
    () => sequence.tokens.flatMap((_, index) => tokenAt({ sequence, info, scale, id }, index)),
    [sequence, info, scale, id],
  );
  useEffect(() => {
    if (active === undefined) return undefined;
    const element = document.getElementById(`${id}-${active}`);
    element?.classList.add('active');
    element?.setAttribute('aria-selected', 'true');
    return () => {
      element?.classList.remove('active');
      element?.setAttribute('aria-selected', 'false');
    };
  }, [active, tokens, id]);
  const over = (event: Event, pinned: boolean): void => {
    const token = event.target instanceof Element ? event.target.closest('[data-token]') : null;
    if (token instanceof HTMLElement) onActive(Number(token.dataset['token']), pinned);
  };
  const walk = (event: KeyboardEvent): void => {
    if (event.key === 'Escape') return onActive(undefined, false);
    const next = nextToken(event.key, active, sequence.tokens.length, id);
    if (next === undefined) return;
    event.preventDefault();
    onActive(next, true);
    document.getElementById(`${id}-${next}`)?.scrollIntoView({ block: 'nearest' });
  };
  return (
    <div
      ref={box}
      class="tokens"
      role="listbox"
      aria-label={label}
      aria-activedescendant={active === undefined ? undefined : `${id}-${active}`}
      tabIndex={0}
      onKeyDown={walk}
      onPointerOver={(event) => over(event, false)}
      onClick={(event) => over(event, true)}
      onFocus={() => active === undefined && onActive(0, false)}
    >
      {tokens}
    </div>
  );
}

/** Where a key leads: left and right by one token, up and down by one line. */
function nextToken(
  key: string,
  active: number | undefined,
  count: number,
  id: string,
): number | undefined {
  const from = active ?? -1;
  const bounded = (index: number): number => Math.min(count - 1, Math.max(0, index));
  switch (key) {
    case 'ArrowRight':
      return bounded(from + 1);
    case 'ArrowLeft':
      return bounded(from - 1);
    case 'Home':
      return 0;
    case 'End':
      return count - 1;
    case 'ArrowDown':
    case 'ArrowUp':
      return onOtherLine(bounded(from), key === 'ArrowDown' ? 1 : -1, count, id);
    default:
      return undefined;
  }
}

/** The token above or below. */
function onOtherLine(from: number, direction: number, count: number, id: string): number {
  const place = (index: number) =>
    document.getElementById(`${id}-${index}`)?.getClientRects()[0] ?? new DOMRect();
  const start = place(from);
  let best = from;
  let line: number | undefined;
  for (let index = from + direction; index >= 0 && index < count; index += direction) {
    const rect = place(index);
    if (Math.abs(rect.top - start.top) < 4) continue;
    line ??= rect.top;
    if (Math.abs(rect.top - line) >= 4) break;
    const distance = Math.abs(rect.left - start.left);
    if (best === from || distance < Math.abs(place(best).left - start.left)) best = index;
  }
  return best;
}

function tokenAt(
  { sequence, info, scale, id }: Pick<TokenTextProps, 'sequence' | 'info' | 'scale' | 'id'>,
  index: number,
): JSX.Element[] {
  const token = sequence.tokens[index] ?? '';
  const value = info === undefined ? undefined : valuesOf(sequence, info.name)?.[index];
  const shade = scale?.shade(value);
  const clipped = clipSide(sequence, index);
  const isTrained = (sequence.streams.mask?.[index] ?? 1) > 0;
  const classes = [
    'token',
    shade?.side,
    clipped && `clipped-${clipped}`,
    isTrained ? undefined : 'untrained',
  ];
  const spoken = [
    `${visibleToken(token)}`,
    info && `${info.label} ${formatNumber(value)}`,
    clipped && `clipped at the ${clipped === 'low' ? 'lower' : 'upper'} bound`,
    isTrained ? undefined : 'not trained',
  ];
  const step = sequence.steps.find(({ from }) => from === index);
  const shown = (
    <span
      key={index}
      id={`${id}-${index}`}
      data-token={index}
      role="option"
      aria-selected={false}
      aria-label={spoken.filter(Boolean).join(', ')}
      class={classes.filter(Boolean).join(' ')}
      style={shade === undefined ? undefined : { '--strength': shade.strength.toFixed(3) }}
    >
      {tokenText(token)}
    </span>
  );
  if (step === undefined) return [shown];
  return [
    <span key={`step ${index}`} class="step-chip num" title={stepTitle(step)}>
      {formatNumber(step.score, 2)}
      {step.label !== null && (step.label ? ' ✓' : ' ✗')}
    </span>,
    shown,
  ];
}

function stepTitle({ label }: SampleStep): string {
  const known = label === null ? '' : `; it is labelled ${label ? 'right' : 'wrong'}`;
  return `Probability that this step is right${known}`;
}

/** A token with its line ends kept and shown. */
export function tokenText(token: string): string {
  if (token === '') return '∅';
  return visibleText(token).replace(/\n/g, '↵\n').replace(/\t/g, '⇥\t');
}
