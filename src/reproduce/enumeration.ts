/**
 * Every completion that a small model can write, with its exact probability: what experiments measure by instead of by
 * samples. Knows models and rewards; knows no experiment.
 */
import { RewardError, ShapeError, ValueRangeError } from '../errors/index.js';
import type { CausalLm } from '../models/index.js';
import type { RewardFunction } from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { assertIntegerAtLeast, noGrad, tensor, tidy } from '../torch/index.js';

/** More would neither fit into memory comfortably nor be done in minutes. */
const MAX_COMPLETIONS = 2 ** 23;

/** Prefixes that go through the model together. Never changes a result beyond rounding. */
const ROWS = 4096;

/** What a completion may be. */
export interface CompletionSpaceOptions {
  /** V of the model. */
  readonly vocabSize: number;
  /** Tokens that end a completion; at least one. */
  readonly eosTokenIds: readonly number[];
  /** The most tokens that a completion may have, its EOS included. */
  readonly maxNewTokens: number;
}

/**
 * All completions of up to a number of tokens: an EOS token ends one, and so does the limit. Numbered from 0: by length,
 * those that end with EOS; then those that the limit ends. Each is what `sample` may draw at temperature 1 without
 * truncation, padding tokens included: a model gives them a probability like any other.
 *
 *     size = Σ_{t=0}^{T−1} N^t·E + N^T,  E tokens that end, N = V − E that do not, T the limit
 */
export class CompletionSpace {
  readonly maxNewTokens: number;
  readonly vocabSize: number;
  readonly size: number;
  /** E ids, ascending. */
  readonly endings: readonly number[];
  /** N ids, ascending. */
  readonly continuations: readonly number[];

  /** @throws ValueRangeError for a limit below 1, an EOS token out of range or none, or more than 2^23 completions */
  constructor({ vocabSize, eosTokenIds, maxNewTokens }: CompletionSpaceOptions) {
    assertIntegerAtLeast('CompletionSpace', 'maxNewTokens', maxNewTokens, 1);
    const ends = new Set(eosTokenIds);
    const ids = Array.from({ length: vocabSize }, (_, id) => id);
    this.vocabSize = vocabSize;
    this.maxNewTokens = maxNewTokens;
    this.endings = ids.filter((id) => ends.has(id));
    this.continuations = ids.filter((id) => !ends.has(id));
    if (ends.size === 0 || this.endings.length < ends.size) {
      throw new ValueRangeError(
        `CompletionSpace: expected at least one EOS token, each from 0 to ${vocabSize - 1}, received [${eosTokenIds.join(', ')}].`,
      );
    }
    let size = this.continuations.length ** maxNewTokens;
    for (let t = 0; t < maxNewTokens; t++) size += this.endingsAfter(t);
    if (size > MAX_COMPLETIONS) {
      throw new ValueRangeError(
        `CompletionSpace: expected at most ${MAX_COMPLETIONS} completions, received ${size} of up to ${maxNewTokens} tokens.`,
        { hint: 'Use fewer tokens or a smaller vocabulary.' },
      );
    }
    this.size = size;
  }

  /**
   * Token ids of a completion, its EOS included.
   *
   * @throws ValueRangeError unless `index` is an integer from 0 to size − 1
   */
  tokenIds(index: number): number[] {
    if (!Number.isInteger(index) || index < 0 || index >= this.size) {
      throw new ValueRangeError(
        `CompletionSpace: expected an index from 0 to ${this.size - 1}, received ${index}.`,
      );
    }
    let rest = index;
    for (let length = 0; length < this.maxNewTokens; length++) {
      const count = this.endingsAfter(length);
      if (rest < count) {
        const ending = this.endings[rest % this.endings.length] ?? NaN;
        return [...this.prefix(Math.floor(rest / this.endings.length), length), ending];
      }
      rest -= count;
    }
    return this.prefix(rest, this.maxNewTokens);
  }

  /** Whether EOS ended a completion, or the limit. */
  finishReason(index: number): 'eos' | 'length' {
    return index < this.size - this.continuations.length ** this.maxNewTokens ? 'eos' : 'length';
  }

  /** The text of every completion, without special tokens. */
  texts(tokenizer: Tokenizer): string[] {
    return Array.from({ length: this.size }, (_, index) =>
      tokenizer.decode(this.tokenIds(index), { skipSpecialTokens: true }),
    );
  }

  /** The ids of the prefix with this number among the N^length that EOS has not ended. */
  prefix(number: number, length: number): number[] {
    const ids: number[] = [];
    let rest = number;
    for (let t = 0; t < length; t++) {
      ids.unshift(this.continuations[rest % this.continuations.length] ?? NaN);
      rest = Math.floor(rest / this.continuations.length);
    }
    return ids;
  }

  private endingsAfter(length: number): number {
    return this.continuations.length ** length * this.endings.length;
  }
}

/**
 * The log-probability of every completion of a prompt, exactly: prefix by prefix of each length, all prefixes of a length
 * at once.
 *
 *     log π(y | x) = Σₜ log softmax(logits(x, y₍<t₎))[yₜ]
 *
 * Softmax and sums are taken in float64 whatever the model's dtype, so that the probabilities sum to 1 within 1e-12. A
 * float32 model rounds the logits alone; `tokenLogprobs` of such a model differs by float32's rounding.
 *
 * @param promptIds tokens of the prompt, at least one
 * @returns [space.size] nats
 * @throws ShapeError for an empty prompt; ValueRangeError where the space is not that of the model's vocabulary
 */
export function completionLogprobs(
  model: CausalLm,
  promptIds: readonly number[],
  space: CompletionSpace,
): Float64Array {
  if (promptIds.length === 0) {
    throw new ShapeError(
      'completionLogprobs: expected a prompt of at least one token, received none.',
    );
  }
  if (space.vocabSize !== model.config.vocabSize) {
    throw new ValueRangeError(
      `completionLogprobs: expected a space over the model's ${model.config.vocabSize} tokens, received one over ${space.vocabSize}.`,
    );
  }
  const { endings, continuations, maxNewTokens } = space;
  const found = new Float64Array(space.size);
  let written = 0;
  let prefixes: Float64Array = Float64Array.of(0);
  for (let length = 0; length < maxNewTokens; length++) {
    const next = new Float64Array(prefixes.length * continuations.length);
    for (let start = 0; start < prefixes.length; start += ROWS) {
      const count = Math.min(ROWS, prefixes.length - start);
      const rows = Array.from({ length: count }, (_, row) => [
        ...promptIds,
        ...space.prefix(start + row, length),
      ]);
      const table = nextLogprobs(model, rows);
      for (let row = 0; row < count; row++) {
        const prefix = start + row;
        const before = prefixes[prefix] ?? NaN;
        const logprobOf = (id: number): number =>
          before + (table[row * space.vocabSize + id] ?? NaN);
        for (const id of endings) found[written++] = logprobOf(id);
        continuations.forEach((id, place) => {
          next[prefix * continuations.length + place] = logprobOf(id);
        });
      }
    }
    prefixes = next;
  }
  found.set(prefixes, written);
  return found;
}

/** [rows, V] flattened, float64: the distribution of the token after each row. */
function nextLogprobs(model: CausalLm, rows: readonly (readonly number[])[]): Float64Array {
  return tidy(() =>
    noGrad(() => {
      const width = rows[0]?.length ?? 0;
      const flat = Float64Array.from(rows.flat());
      const options = {
        dtype: 'int64',
        device: model.device,
        shape: [rows.length, width],
      } as const;
      const states = model.hiddenStates({ inputIds: tensor(flat, options) }).select(1, width - 1);
      const logprobs = model.lmHead(states).to({ dtype: 'float64' }).logSoftmax(1);
      return Float64Array.from(logprobs.toTypedArray(), Number);
    }),
  );
}

/** What `completionRewards` asks. */
export interface CompletionRewardOptions {
  readonly space: CompletionSpace;
  /** `space.texts` of the tokenizer: once for all prompts. */
  readonly texts: readonly string[];
  readonly prompt: string;
  /** The prompt's row, with what the reward reads of it. */
  readonly row?: Readonly<Record<string, unknown>> | undefined;
  readonly reward: RewardFunction;
}

/**
 * The reward of every completion of a prompt.
 *
 * @returns [space.size]
 * @throws RewardError where a completion is left unscored
 */
export async function completionRewards(options: CompletionRewardOptions): Promise<Float64Array> {
  const { space, texts, prompt, row = {}, reward } = options;
  const found = new Float64Array(space.size);
  for (let index = 0; index < space.size; index++) {
    const completion = texts[index] ?? '';
    const score = await reward({
      ...{ prompt, completion, row },
      finishReason: space.finishReason(index),
      completionTokens: space.tokenIds(index).length,
    });
    if (score === null || score === undefined || !Number.isFinite(score)) {
      throw new RewardError(
        `completionRewards: expected a finite reward for every completion, received ${score} for ${JSON.stringify(completion)}.`,
      );
    }
    found[index] = score;
  }
  return found;
}

/**
 * E[r] under a distribution over completions.
 *
 * @param logprobs [N] nats
 * @param rewards [N]
 */
export function expectedReward(logprobs: Float64Array, rewards: Float64Array): number {
  return expectation(logprobs, (index) => rewards[index] ?? NaN);
}

/**
 * KL(π ‖ π_ref) = Σ π·(log π − log π_ref) over whole completions.
 *
 * @param logprobs [N] nats, of π
 * @param refLogprobs [N] nats
 * @returns nats per completion
 */
export function klPolicyReference(logprobs: Float64Array, refLogprobs: Float64Array): number {
  return expectation(logprobs, (index, logprob) => logprob - (refLogprobs[index] ?? NaN));
}

/**
 * H(π) = −Σ π·log π over whole completions.
 *
 * @param logprobs [N] nats
 * @returns nats per completion
 */
export function completionEntropy(logprobs: Float64Array): number {
  return expectation(logprobs, (_, logprob) => -logprob);
}

/** Σ π·value. What has no probability adds nothing, whatever its value. */
function expectation(
  logprobs: Float64Array,
  valueOf: (index: number, logprob: number) => number,
): number {
  let sum = 0;
  logprobs.forEach((logprob, index) => {
    if (logprob > -Infinity) sum += Math.exp(logprob) * valueOf(index, logprob);
  });
  return sum;
}
