/** Everything that is known of one token. */
import type { JSX } from 'preact';
import type { SampleSequence, TokenExplanation } from '../../../src/dashboard/protocol.js';
import { formatNumber, visibleToken } from '../../../src/dashboard/view/format.js';
import { clipSide, STREAMS, valuesOf } from '../../../src/dashboard/view/streams.js';
import { useAnswer, useSettled } from '../hooks.js';
import { Fault } from '../parts.js';

/** The panel. */
export function TokenPanel({
  sequence,
  index,
  explanationAddress,
  chosen,
}: {
  sequence: SampleSequence;
  index: number;
  /** null where there is none to ask for. */
  explanationAddress: string | null;
  /** The stream that colours the text. */
  chosen: string | undefined;
}): JSX.Element {
  const clipped = clipSide(sequence, index);
  const token = sequence.tokens[index] ?? '';
  return (
    <div class="token-panel">
      <h2>
        <span class="mono token-name">{visibleToken(token)}</span>
        <span class="quiet num">
          token {index + 1} of {sequence.tokens.length}, id {sequence.tokenIds[index] ?? '—'}
        </span>
      </h2>
      {clipped !== undefined && (
        <p class="clip-note">
          Clipped at the {clipped === 'low' ? 'lower ▼' : 'upper ▲'} bound: no gradient flows
          through its ratio.
        </p>
      )}
      <table class="token-numbers">
        <tbody>
          {STREAMS.map(({ name, label, unit, explanation }) => {
            const value = valuesOf(sequence, name)?.[index];
            if (value === undefined) return null;
            return (
              <tr key={name} class={name === chosen ? 'chosen' : undefined}>
                <th scope="row" title={explanation}>
                  {label}
                </th>
                <td class="num right">{formatNumber(value, 5)}</td>
                <td class="quiet">{unit}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      <Alternatives sequence={sequence} index={index} />
      <Explanation address={explanationAddress} />
    </div>
  );
}

/** The most likely tokens at a place; with `onChoose` each can be taken instead. */
export function Alternatives({
  sequence: { topTokens, tokens },
  index,
  onChoose,
}: {
  sequence: SampleSequence;
  index: number;
  onChoose?: (rank: number) => void;
}): JSX.Element | null {
  const names = topTokens?.tokens[index];
  const logprobs = topTokens?.logprobs[index];
  if (names === undefined || logprobs === undefined || names.length === 0) return null;
  return (
    <section>
      <h3>Most likely here</h3>
      <ol class="alternatives">
        {names.map((name, rank) => {
          const share = Math.exp(logprobs[rank] ?? -Infinity);
          return (
            <li key={rank} class={name === tokens[index] ? 'drawn' : undefined}>
              {onChoose === undefined ? (
                <span class="mono token-name">{visibleToken(name)}</span>
              ) : (
                <button
                  type="button"
                  class="mono token-name"
                  title="Go on from here with this token"
                  onClick={() => onChoose(rank)}
                >
                  {visibleToken(name)}
                </button>
              )}
              <span class="bar" aria-hidden="true">
                <span style={{ width: `${share * 100}%` }} />
              </span>
              <span class="num right">{(share * 100).toFixed(1)} %</span>
            </li>
          );
        })}
      </ol>
    </section>
  );
}

/** This token's part of the loss, with its numbers put in; asked for once the reader stays on it. */
function Explanation({ address }: { address: string | null }): JSX.Element {
  const settled = useSettled(address, 120);
  const { data, error } = useAnswer<TokenExplanation>(settled);
  const what = data?.of ?? 'loss';
  return (
    <section class="explanation-card" aria-live="polite">
      <h3>In the {what}</h3>
      {error !== undefined && <Fault error={error} />}
      {data !== undefined && (
        <>
          {data.formula !== '' && <p class="mono formula">{data.formula}</p>}
          {data.terms.map(({ name, formula, withNumbers, value }) => (
            <div key={name} class="term">
              <span class="quiet">{name}</span>
              <span class="mono formula">{formula}</span>
              <span class="mono formula">
                = {withNumbers} = <strong>{formatNumber(value, 5)}</strong>
              </span>
            </div>
          ))}
          {data.terms.length === 0 && data.withNumbers !== '' && (
            <p class="mono formula">{data.withNumbers}</p>
          )}
          {data.total !== null && (
            <p>
              Part of the {what}: <strong class="num">{formatNumber(data.total, 5)}</strong>
            </p>
          )}
          {data.remark !== '' && <p class="quiet">{data.remark}</p>}
        </>
      )}
      {data === undefined && error === undefined && <p class="quiet">…</p>}
    </section>
  );
}
