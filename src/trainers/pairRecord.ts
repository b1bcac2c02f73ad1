/** A pair of preference data as samples.jsonl keeps it. */
import type { TokenLogprobs } from '../models/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { LossRecord } from './lossSettings.js';
import type { Pair, PairTokens } from './pairPass.js';
import { rowsOf, type TokenRow } from './tokenRows.js';
import type { PairRecord, PairSide } from './trainer.js';

/** What is known of a pair of a step. */
export interface KnownPair {
  readonly pair: Pair;
  /** Place in the step's batch. */
  readonly place: number;
  readonly tokens: PairTokens;
  readonly loss: LossRecord;
}

/** A line of samples.jsonl: chosen and rejected with their numbers per token, and their implicit rewards. */
export function pairRecord(
  { pair, place, tokens, loss }: KnownPair,
  step: number,
  tokenizer: Tokenizer,
): PairRecord {
  const textOf = (ids: readonly number[]): string => tokenizer.decode(Array.from(ids));
  const { beta = 1 } = loss;
  const { refLogprobs: known } = pair;
  const chosen = beta * (sum(tokens.chosen) - (sumIf(tokens.refChosen) ?? known?.chosen ?? 0));
  const rejected =
    beta * (sum(tokens.rejected) - (sumIf(tokens.refRejected) ?? known?.rejected ?? 0));
  const side = (row: TokenRow, logprobs: readonly number[], ref?: readonly number[]): PairSide => ({
    tokenIds: row.completionIds,
    tokens: row.completionIds.map((id) => tokenizer.tokenText(id)),
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

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function sumIf(values: readonly number[] | undefined): number | undefined {
  return values && sum(values);
}
