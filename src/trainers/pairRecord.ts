/** A pair of preference data as samples.jsonl keeps it. */
import { enableGrad, tensor, tidy } from '../torch/index.js';
import type { TokenLogprobs } from '../models/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { LossRecord } from './lossSettings.js';
import type { Pair, PairLossFunction, PairTokens } from './pairPass.js';
import { drawnTokens, rowsOf, type TokenRow } from './tokenRows.js';
import type { PairRecord, PairSide } from './trainer.js';
import { tokenTexts } from './tokenTexts.js';

/** What is known of a pair of a step. */
export interface KnownPair {
  readonly pair: Pair;
  /** Place in the step's batch. */
  readonly place: number;
  readonly tokens: PairTokens;
}

/** The step that pairs belong to. */
export interface PairStep {
  readonly step: number;
  readonly tokenizer: Tokenizer;
  readonly settings: LossRecord;
  readonly lossOf: PairLossFunction;
  /** Whether the loss of a pair depends on the others, so that none has a part of its own. */
  readonly isCoupled: boolean;
  /** Pairs of the step, over which the loss is a mean. */
  readonly count: number;
}

/** Lines of samples.jsonl: chosen and rejected with their numbers per token, implicit rewards, parts of the loss. */
export function pairRecords(known: readonly KnownPair[], step: PairStep): PairRecord[] {
  const parts = step.isCoupled ? [] : pairParts(known, step.lossOf, step.count);
  return known.map((pair, at) => pairRecord(pair, { ...step.settings, ...parts[at] }, step));
}

function pairRecord(
  { pair, place, tokens }: KnownPair,
  loss: LossRecord,
  { step, tokenizer }: PairStep,
): PairRecord {
  const textOf = (ids: readonly number[]): string => tokenizer.decode(Array.from(ids));
  const { beta = 1 } = loss;
  const sums = pairSums(pair, tokens);
  const chosen = beta * (sums.chosen - (sums.refChosen ?? 0));
  const rejected = beta * (sums.rejected - (sums.refRejected ?? 0));
  const side = (row: TokenRow, logprobs: readonly number[], ref?: readonly number[]): PairSide => ({
    tokenIds: row.completionIds,
    tokens: tokenTexts(tokenizer, row.completionIds),
    streams: {
      logprobs,
      ...(ref && { refLogprobs: ref }),
      mask: row.completionMask ?? row.completionIds.map(() => 1),
    },
  });
  const { tokenIds, tokens: texts, streams } = side(pair.chosen, tokens.chosen, tokens.refChosen);
  return {
    ...{ kind: 'pair', step, promptIndex: place, groupIndex: 0, length: tokenIds.length },
    ...{ reward: chosen - rejected, rewards: { chosen, rejected } },
    prompt: textOf(pair.chosen.promptIds),
    completion: textOf(tokenIds),
    ...{ tokenIds, tokens: texts, loss, streams },
    rejected: {
      text: textOf(pair.rejected.completionIds),
      ...side(pair.rejected, tokens.rejected, tokens.refRejected),
    },
  };
}

/** Keeps the tokens of the pairs that are written down, unless an earlier pass has. */
export function recordTokens(
  recorded: Map<number, PairTokens | null>,
  found: {
    places: readonly number[];
    part: readonly TokenRow[];
    scored: TokenLogprobs;
    ofReference: TokenLogprobs | null;
  },
): void {
  const { places, part, scored, ofReference } = found;
  if (!places.some((place) => recorded.get(place) === null)) return;
  const ofPolicy = rowsOf(scored.logprobs, part);
  const reference = ofReference && rowsOf(ofReference.logprobs, part);
  places.forEach((place, at) => {
    if (recorded.get(place) !== null) return;
    recorded.set(place, {
      chosen: ofPolicy[2 * at] ?? [],
      rejected: ofPolicy[2 * at + 1] ?? [],
      ...(reference && { refChosen: reference[2 * at], refRejected: reference[2 * at + 1] }),
    });
  });
}

/** Of both completions, over the tokens that the model drew, nats. */
interface PairSums {
  readonly chosen: number;
  readonly rejected: number;
  readonly refChosen?: number | undefined;
  readonly refRejected?: number | undefined;
}

function pairSums({ chosen, rejected, refLogprobs }: Pair, tokens: PairTokens): PairSums {
  const sum = (values: readonly number[], row: TokenRow): number =>
    values.reduce(
      (total, value, at) => (row.completionMask?.[at] === 0 ? total : total + value),
      0,
    );
  return {
    chosen: sum(tokens.chosen, chosen),
    rejected: sum(tokens.rejected, rejected),
    refChosen: tokens.refChosen ? sum(tokens.refChosen, chosen) : refLogprobs?.chosen,
    refRejected: tokens.refRejected ? sum(tokens.refRejected, rejected) : refLogprobs?.rejected,
  };
}

/**
 * What each pair adds to the loss of its step, divided between its two completions: see `LossRecord.slope`. The loss is
 * asked once more for the pairs that are written down, as a function of a few numbers.
 */
function pairParts(
  pairs: readonly KnownPair[],
  lossOf: PairLossFunction,
  count: number,
): Required<Pick<LossRecord, 'slope' | 'rejectedSlope' | 'rest'>>[] {
  if (pairs.length === 0) return [];
  const sums = pairs.map(({ pair, tokens }) => pairSums(pair, tokens));
  const column = (of: (each: PairSums) => number | undefined) =>
    tensor(Float64Array.from(sums, (each) => of(each) ?? NaN));
  const lengths = (of: (pair: Pair) => TokenRow) =>
    tensor(Float64Array.from(pairs, ({ pair }) => drawnTokens(of(pair))));
  const found = tidy(() =>
    enableGrad(() => {
      const chosenLogprobs = column(({ chosen }) => chosen).requiresGrad_();
      const rejectedLogprobs = column(({ rejected }) => rejected).requiresGrad_();
      const { loss } = lossOf({
        ...{ chosenLogprobs, rejectedLogprobs },
        chosenLengths: lengths(({ chosen }) => chosen),
        rejectedLengths: lengths(({ rejected }) => rejected),
        ...(sums[0]?.refChosen !== undefined && {
          refChosenLogprobs: column(({ refChosen }) => refChosen),
          refRejectedLogprobs: column(({ refRejected }) => refRejected),
        }),
      });
      loss.sum().backward();
      const [losses, slopes, rejectedSlopes] = [
        loss,
        chosenLogprobs.grad,
        rejectedLogprobs.grad,
      ].map((each) => Array.from(each?.toTypedArray() ?? [], (value) => Number(value) / count));
      return { losses, slopes, rejectedSlopes };
    }),
  );
  return sums.map(({ chosen, rejected, ...ofReference }, at) => {
    // Where the reference is known by its sums alone, they belong to what no token has.
    const isLive = pairs[at]?.tokens.refChosen !== undefined;
    const { refChosen = 0, refRejected = 0 } = isLive ? ofReference : {};
    const [slope = 0, rejectedSlope = 0] = [found.slopes?.[at], found.rejectedSlopes?.[at]];
    const linear = slope * (chosen - refChosen) + rejectedSlope * (rejected - refRejected);
    return { slope, rejectedSlope, rest: ((found.losses?.[at] ?? NaN) - linear) / 2 };
  });
}
