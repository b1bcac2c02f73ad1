/** Log-probabilities that a model gives to completions that are already written. */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import {
  assertIntegerAtLeast,
  assertPositive,
  assertRank,
  cat,
  isGradEnabled,
  ones,
  tensor,
  tidy,
  zeros,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import type { CausalLm } from './causalLm.js';

/** What `tokenLogprobs` reads. Row i is prompt ⊕ completion without a gap, then padding. */
export interface TokenLogprobsInput {
  /** [B, L] int64. What stands beyond a row's length must be some id of the vocabulary and changes nothing. */
  readonly inputIds: Tensor;
  /** B numbers of at least 1: tokens of the prompt. A token needs something before it to be predicted from. */
  readonly promptLengths: readonly number[];
  /** B numbers from promptLengths[i] to L: tokens of prompt and completion together. */
  readonly lengths: readonly number[];
  /** τ, by which logits are divided: 1 unless said. The sampler's, or its log-probabilities are others. */
  readonly temperature?: number | undefined;
  /** Tokens whose logits stand in memory at a time where no gradient is recorded; chosen by the vocabulary's size. */
  readonly chunkTokens?: number | undefined;
  /** Also compute the entropy of each distribution. */
  readonly withEntropy?: boolean | undefined;
}

/** What `tokenLogprobs` returns. T is the longest completion; position t of row i is its token promptLengths[i] + t. */
export interface TokenLogprobs {
  /** [B, T] nats, exactly 0 beyond a row's completion. float32, float64 for a float64 model. */
  readonly logprobs: Tensor;
  /** [B, T] nats, exactly 0 beyond a row's completion; present if asked for. */
  readonly entropy?: Tensor;
  /** [B, T] 1 at tokens of the completion, 0 beyond; the dtype of `logprobs`. */
  readonly mask: Tensor;
}

/** Elements of one chunk's logits: 16 MB in float32. The allocator keeps blocks up to 32 MB; larger ones cost page faults. */
const CHUNK_ELEMENTS = 2 ** 22;

/**
 * The log-probability of every completion token given all tokens before it.
 *
 *     logprobs[i][t] = log softmax(logits[i][p − 1] / τ)[inputIds[i][p]],  p = promptLengths[i] + t
 *
 * The logits at position p − 1 score the token at p. They are computed at the completion's positions only; the softmax is
 * taken in float32 (float64 for a float64 model) whatever the model's dtype. Where no gradient is recorded, the
 * [tokens, V] matrix exists in chunks only. With gradients it stands as a whole until `backward`.
 *
 * @returns gradients flow to the parameters, through `entropy` too
 * @throws ShapeError unless the inputs fit together; ValueRangeError for a length out of range or τ ≤ 0
 */
export function tokenLogprobs(model: CausalLm, input: TokenLogprobsInput): TokenLogprobs {
  const { inputIds, temperature = 1, withEntropy = false } = input;
  const chunkTokens =
    input.chunkTokens ?? Math.max(1, Math.floor(CHUNK_ELEMENTS / model.config.vocabSize));
  assertPositive('tokenLogprobs', 'temperature', temperature);
  assertIntegerAtLeast('tokenLogprobs', 'chunkTokens', chunkTokens, 1);
  const layout = layoutOf(input);
  return tidy(() => {
    const { device } = model;
    const dtype: Dtype = model.dtype === 'float64' ? 'float64' : 'float32';
    const index = (values: readonly number[]): Tensor =>
      tensor(Float64Array.from(values), { dtype: 'int64', device });
    const { rows, width, longest } = layout;
    const place = index(layout.places);
    const spread = (flat: Tensor): Tensor =>
      zeros([rows * width], { dtype, device })
        .scatter(0, place, flat)
        .view([rows, width]);
    const mask = spread(ones([layout.places.length], { dtype, device }));
    if (layout.places.length === 0)
      return { logprobs: mask, mask: mask.clone(), ...(withEntropy && { entropy: mask.clone() }) };

    // The last token of the longest row predicts nothing that is asked for.
    const used = inputIds.narrow(1, 0, longest - 1);
    const hidden = model.hiddenStates({ inputIds: used }).flatten(0, 1);
    const states = hidden.indexSelect(0, index(layout.predictors));
    const targets = inputIds.to({ device }).flatten().indexSelect(0, index(layout.targets));
    const scored = scoreInChunks(
      model,
      { states, targets, temperature, withEntropy, dtype },
      isGradEnabled() ? layout.places.length : chunkTokens,
    );
    return {
      logprobs: spread(scored.logprobs),
      mask,
      ...(scored.entropy && { entropy: spread(scored.entropy) }),
    };
  });
}

interface Layout {
  readonly rows: number;
  /** T */
  readonly width: number;
  /** Tokens of the longest row. */
  readonly longest: number;
  /** Of every completion token: where it goes in the flattened [B, T] … */
  readonly places: readonly number[];
  /** … where it stands in the flattened [B, L] … */
  readonly targets: readonly number[];
  /** … and where the hidden state that predicts it stands in the flattened [B, longest − 1]. */
  readonly predictors: readonly number[];
}

function layoutOf({ inputIds, promptLengths, lengths }: TokenLogprobsInput): Layout {
  assertRank('tokenLogprobs', '[B, L]', { inputIds });
  const [rows, columns] = [inputIds.size(0), inputIds.size(1)];
  if (promptLengths.length !== rows || lengths.length !== rows)
    throw new ShapeError(
      `tokenLogprobs: expected ${rows} promptLengths and lengths, one per row of inputIds, received ${promptLengths.length} and ${lengths.length}.`,
    );
  lengths.forEach((length, row) => {
    const prompt = promptLengths[row] ?? 0;
    const fits = Number.isInteger(prompt) && Number.isInteger(length);
    if (!fits || prompt < 1 || length < prompt || length > columns)
      throw new ValueRangeError(
        `tokenLogprobs: expected 1 ≤ promptLengths[${row}] ≤ lengths[${row}] ≤ ${columns}, received ${prompt} and ${length}.`,
      );
  });
  const longest = Math.max(...lengths);
  const width = Math.max(...lengths.map((length, row) => length - (promptLengths[row] ?? 0)));
  const places: number[] = [];
  const targets: number[] = [];
  const predictors: number[] = [];
  lengths.forEach((length, row) => {
    const prompt = promptLengths[row] ?? 0;
    for (let position = prompt; position < length; position++) {
      places.push(row * width + position - prompt);
      targets.push(row * columns + position);
      predictors.push(row * (longest - 1) + position - 1);
    }
  });
  return { rows, width, longest, places, targets, predictors };
}

interface Scoring {
  /** [N, D] */
  readonly states: Tensor;
  /** [N] int64 */
  readonly targets: Tensor;
  readonly temperature: number;
  readonly withEntropy: boolean;
  readonly dtype: Dtype;
}

/** Both [N]. */
interface Scored {
  readonly logprobs: Tensor;
  readonly entropy?: Tensor;
}

function scoreInChunks(model: CausalLm, scoring: Scoring, chunkTokens: number): Scored {
  const { states, targets } = scoring;
  const total = states.size(0);
  const parts: Scored[] = [];
  for (let start = 0; start < total; start += chunkTokens) {
    const length = Math.min(chunkTokens, total - start);
    const chunk = {
      ...scoring,
      states: states.narrow(0, start, length),
      targets: targets.narrow(0, start, length),
    };
    parts.push(tidy(() => score(model, chunk)));
  }
  const [first] = parts;
  if (parts.length === 1 && first !== undefined) return first;
  return {
    logprobs: cat(parts.map(({ logprobs }) => logprobs)),
    ...(scoring.withEntropy && {
      entropy: cat(parts.flatMap(({ entropy }) => (entropy === undefined ? [] : [entropy]))),
    }),
  };
}

function score(model: CausalLm, scoring: Scoring): Scored {
  const { states, targets, temperature, withEntropy, dtype } = scoring;
  // The logits are freed right here; only their log-softmax is needed, for the gradient too.
  const all = tidy(() => {
    const logits = model.lmHead(states).to(dtype);
    return (temperature === 1 ? logits : logits.div(temperature)).logSoftmax(-1);
  });
  const logprobs = all.gather(1, targets.unsqueeze(1)).squeeze(1);
  if (!withEntropy) return { logprobs };
  const probabilities = all.exp();
  // exp keeps its result for its gradient, so that only without one it may be overwritten.
  const products = all.requiresGrad ? probabilities.mul(all) : probabilities.mul_(all);
  return { logprobs, entropy: products.sum(-1).neg() };
}
