/** Completions of the lab side by side, coloured by log-probability, with what could have stood at each place. */
import { useCallback, useMemo, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import type { LabCompletion, LabModel, LabToken } from '../../../src/dashboard/labProtocol.js';
import { formatNumber, visibleText, visibleToken } from '../../../src/dashboard/view/format.js';
import {
  colourScale,
  runningSum,
  type ColourScale,
  type StreamInfo,
} from '../../../src/dashboard/view/streams.js';
import type { ServerError } from '../api.js';
import { Fault, Waiting } from '../parts.js';
import { TokenLegend } from '../tokens/legend.js';
import { Alternatives } from '../tokens/tokenPanel.js';
import { tokenText, TokenText } from '../tokens/tokenText.js';
import { modelName } from './labForm.js';

/** The first model or the second one. */
export type LabSide = 'a' | 'b';

/** A token that a completion is to begin with. */
export type GivenToken = Pick<LabToken, 'id' | 'text'>;

/** One model's answer. */
export interface LabResult {
  readonly side: LabSide;
  readonly model: LabModel;
  readonly prompt: { readonly prompt: string; readonly chat: boolean };
  readonly running: boolean;
  /** Texts of the tokens so far. */
  readonly drawn: readonly string[];
  readonly completion?: LabCompletion | undefined;
  readonly error?: ServerError | undefined;
}

interface ActiveToken {
  readonly side: LabSide;
  readonly index: number;
  readonly pinned: boolean;
}

const INFO: StreamInfo = {
  name: 'logprobs',
  label: 'log-probability',
  group: 'Log-probabilities',
  unit: 'nats',
  scale: 'surprise',
  explanation:
    'Under the model itself: temperature 1, nothing left out. The darker, the less expected.',
};

/** All answers, and one token of them. */
export function LabResults({
  sides,
  onBranch,
}: {
  sides: readonly LabResult[];
  /** Goes on from a beginning of a completion. */
  onBranch: (side: LabSide, given: readonly GivenToken[]) => void;
}): JSX.Element | null {
  const [active, setActive] = useState<ActiveToken | undefined>();
  const onActive = useCallback(
    (side: LabSide, index: number | undefined, pinned: boolean) =>
      setActive((before) => {
        if (index === undefined) return undefined;
        if (!pinned && before?.pinned === true) return before;
        return { side, index, pinned };
      }),
    [],
  );
  // One scale for both, or equal colours would not be equal numbers.
  const scale = useMemo(
    () =>
      colourScale(
        INFO,
        sides.map(({ completion }) => completion?.sequence.streams.logprobs ?? []),
      ),
    // Not of what is being drawn: colours of the other side would be made anew with each of its tokens.
    [completionOf(sides, 'a'), completionOf(sides, 'b')],
  );
  if (sides.length === 0) return null;
  const shown = sides.find(({ side }) => side === active?.side)?.completion;
  const isThere = shown !== undefined && active !== undefined;
  return (
    <div class="inspect">
      <div class="inspect-main">
        <section class="card">
          <p class="quiet">{INFO.explanation}</p>
          <TokenLegend info={INFO} scale={scale} hasClipped={false} hasUntrained={false} />
        </section>
        <div class={sides.length > 1 ? 'pair' : ''}>
          {sides.map((result) => (
            <ResultCard
              key={result.side}
              result={result}
              scale={scale}
              active={active?.side === result.side ? active.index : undefined}
              onActive={onActive}
            />
          ))}
        </div>
      </div>
      <aside class="card inspect-side" aria-label="Token">
        {isThere && active.index < shown.sequence.tokens.length ? (
          <LabToken
            completion={shown}
            index={active.index}
            onChoose={(id) => {
              onBranch(active.side, beginning(shown, active.index, id));
              setActive(undefined);
            }}
          />
        ) : (
          <p class="quiet">
            Point at a token, or walk with the arrow keys. A click or a key holds the token until
            Escape; another one in its place goes on from there.
          </p>
        )}
      </aside>
    </div>
  );
}

/** The completion of one side, where it has ended. */
export function completionOf(
  sides: readonly LabResult[],
  wanted: LabSide,
): LabCompletion | undefined {
  return sides.find(({ side }) => side === wanted)?.completion;
}

/** What stands before a place, and another token in it. */
function beginning(
  { sequence: { tokenIds, tokens, topTokens }, alternativeIds }: LabCompletion,
  index: number,
  id: number,
): GivenToken[] {
  const rank = alternativeIds[index]?.indexOf(id) ?? -1;
  const kept = tokenIds.slice(0, index).map((each, at) => ({ id: each, text: tokens[at] ?? '' }));
  return [...kept, { id, text: topTokens?.tokens[index]?.[rank] ?? '' }];
}

function ResultCard({
  result: { side, model, running, drawn, completion, error },
  scale,
  active,
  onActive,
}: {
  result: LabResult;
  scale: ColourScale;
  active: number | undefined;
  onActive: (side: LabSide, index: number | undefined, pinned: boolean) => void;
}): JSX.Element {
  const name = `${side.toUpperCase()}: ${modelName(model)}`;
  return (
    <section class="card lab-card" aria-label={name} aria-busy={running}>
      <h2>{name}</h2>
      {running && <Waiting what="Computing" />}
      {completion === undefined && drawn.length > 0 && <GrowingText name={name} texts={drawn} />}
      {error !== undefined && <Fault error={error} />}
      {completion !== undefined && (
        <TokenText
          id={`lab-${side}`}
          label={`Completion of ${name}, coloured by ${INFO.label}`}
          sequence={completion.sequence}
          info={INFO}
          scale={scale}
          active={active}
          onActive={(index, pinned) => onActive(side, index, pinned)}
        />
      )}
      <p class="lab-facts num" role="status">
        {!running && error === undefined && endOf(completion)}
      </p>
      {completion !== undefined && <CompletionFacts completion={completion} />}
    </section>
  );
}

/** Tokens as they are drawn. Numbers and colours come with the last one. */
function GrowingText({ name, texts }: { name: string; texts: readonly string[] }): JSX.Element {
  return (
    <>
      <div class="growing" role="group" aria-label={`Completion of ${name} so far`} tabIndex={0}>
        <p>{texts.map(tokenText).join('')}</p>
      </div>
      <p class="lab-facts num">
        {texts.length} {texts.length === 1 ? 'token' : 'tokens'} so far
      </p>
    </>
  );
}

const ENDS = {
  eos: 'ended by itself',
  stop: 'ended at a stop text',
  length: 'cut off at the most tokens',
} as const;

/** Said once it is so. */
function endOf(completion: LabCompletion | undefined): string {
  if (completion === undefined) return 'Stopped.';
  const { length } = completion.sequence.tokenIds;
  return `${length} ${length === 1 ? 'token' : 'tokens'}, ${ENDS[completion.finishReason]}`;
}

function CompletionFacts({ completion }: { completion: LabCompletion }): JSX.Element {
  const { sequence, givenTokens, seconds, settings, promptText } = completion;
  const drawn = sequence.tokenIds.length - givenTokens;
  const sum = runningSum(sequence.streams.logprobs ?? []).at(-1) ?? 0;
  const speed = seconds.sampling > 0 ? drawn / seconds.sampling : null;
  return (
    <>
      <p class="lab-facts">
        {givenTokens > 0 && <span class="num">{givenTokens} of them given</span>}
        <span class="num">log-probability {formatNumber(sum, 4)}</span>
        <span class="num">
          perplexity {formatNumber(Math.exp(-sum / Math.max(1, sequence.tokenIds.length)), 4)}
        </span>
        <span class="num">
          {formatNumber(seconds.sampling, 3)} s
          {speed !== null && drawn > 0 && `, ${formatNumber(speed, 3)} tokens/s`}
          {seconds.loading > 0 && `, loaded in ${formatNumber(seconds.loading, 3)} s`}
        </span>
        <span class="num">
          temperature {formatNumber(settings.temperature)}, top p {formatNumber(settings.topP)}, top
          k {settings.topK === 0 ? 'off' : settings.topK}, seed {settings.seed}
        </span>
      </p>
      <details class="lab-facts">
        <summary>The prompt as the model saw it, {completion.promptTokens} tokens</summary>
        <div class="text short">{visibleText(promptText)}</div>
      </details>
    </>
  );
}

/** Everything that is known of one token. */
function LabToken({
  completion: { sequence, alternativeIds, givenTokens },
  index,
  onChoose,
}: {
  completion: LabCompletion;
  index: number;
  onChoose: (id: number) => void;
}): JSX.Element {
  const logprob = sequence.streams.logprobs?.[index] ?? null;
  const drawn = sequence.streams.rolloutLogprobs?.[index] ?? null;
  const rows = [
    ['log-probability', formatNumber(logprob, 5), 'nats'],
    ['probability', logprob === null ? '—' : (Math.exp(logprob) * 100).toFixed(2), '%'],
    [
      'as it was drawn',
      drawn === null ? 'given' : formatNumber(drawn, 5),
      drawn === null ? '' : 'nats',
    ],
  ] as const;
  return (
    <div class="token-panel">
      <h2>
        <span class="mono token-name">{visibleToken(sequence.tokens[index] ?? '')}</span>
        <span class="quiet num">
          token {index + 1} of {sequence.tokens.length}, id {sequence.tokenIds[index] ?? '—'}
          {index < givenTokens && ', given'}
        </span>
      </h2>
      <table class="token-numbers">
        <tbody>
          {rows.map(([name, value, unit]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td class="num right">{value}</td>
              <td class="quiet">{unit}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <Alternatives
        sequence={sequence}
        index={index}
        onChoose={(rank) => {
          const id = alternativeIds[index]?.[rank];
          if (id !== undefined) onChoose(id);
        }}
      />
      <p class="quiet">A token of the list goes on from here: what stood before it stays.</p>
    </div>
  );
}
