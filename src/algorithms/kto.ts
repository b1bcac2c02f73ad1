/** Kahneman–Tversky optimisation: completions that are labelled one by one, without pairs. */
import { ValueRangeError } from '../errors/index.js';
import { assertPositive, assertRank, assertSameShape, type Tensor } from '../torch/index.js';
import { countedEntries } from './counted.js';
import { rowsOf } from './preferencePairs.js';

/** What `ktoLoss` reads. */
export interface KtoLossInputs {
  /** [B] nats. log π_θ of whole completions, from `sequenceLogprob`. The only input that receives a gradient. */
  readonly policyLogprobs: Tensor;
  /** [B] nats. The same completions under the frozen reference. Constant. */
  readonly refLogprobs: Tensor;
  /** [B] above 0 where the completion is desirable. Constant. */
  readonly labels: Tensor;
  /**
   * [M] nats. log π_θ − log π_ref of prompts with the completions of other prompts. Constant. They belong to the whole
   * minibatch: pass all of them with every micro-batch.
   */
  readonly klLogratios: Tensor;
  /** [M] above 0 where klLogratios counts. All count when omitted. */
  readonly klMask?: Tensor | undefined;
  /** β > 0: the scale of the implicit reward. */
  readonly beta: number;
  /** λ_D > 0. 1 when omitted. */
  readonly desirableWeight?: number | undefined;
  /** λ_U > 0. 1 when omitted. */
  readonly undesirableWeight?: number | undefined;
  /** [B] wᵢ, which multiplies row i of the loss. A row with weight 0 is never read. Constant; 1 when omitted. */
  readonly weights?: Tensor | undefined;
}

/** What `ktoLoss` returns. */
export interface KtoLossOutput {
  /** [B] to minimise, times the weights. Add the rows. */
  readonly loss: Tensor;
  /** [B] βx, the implicit reward. Detached; 0 in a row with weight 0. */
  readonly rewards: Tensor;
  /** [] nats. The reference point z. Detached. */
  readonly kl: Tensor;
}

/**
 * The value of each completion, relative to a reference point, in the manner of prospect theory.
 *
 *     x = log π_θ − log π_ref      z = sg[max(0, mean of klLogratios)]
 *     L = λ_D·(1 − σ(β(x − z)))    where desirable
 *         λ_U·(1 − σ(β(z − x)))    where undesirable
 *
 * Source: Ethayarajh et al. 2024, arXiv:2402.01306, Eq. 7–8, as KTOTrainer of TRL 1.13 has it: the mismatched completions
 * give an estimate of the KL that is biased and cheap, and no gradient flows through it. 1 − σ(x) is computed as σ(−x).
 *
 * @throws ShapeError unless klLogratios and klMask are [M] alike, and all other tensors [B]
 * @throws ValueRangeError for a β or λ that is not positive, or without any counted log-ratio for z
 */
export function ktoLoss(inputs: KtoLossInputs): KtoLossOutput {
  const { policyLogprobs, refLogprobs, labels, beta, weights } = inputs;
  const { desirableWeight = 1, undesirableWeight = 1 } = inputs;
  const tensors = { policyLogprobs, refLogprobs, labels, ...(weights && { weights }) };
  assertSameShape('ktoLoss', '[B]', tensors);
  assertPositive('ktoLoss', 'beta', beta);
  assertPositive('ktoLoss', 'desirableWeight', desirableWeight);
  assertPositive('ktoLoss', 'undesirableWeight', undesirableWeight);

  const rows = rowsOf(weights);
  const logRatio = rows.read(policyLogprobs).sub(rows.read(refLogprobs.detach())); // frozen reference
  const kl = referencePoint(inputs);
  const isDesirable = countedEntries(labels);
  const distance = logRatio.sub(kl).mul(beta);
  const desirable = distance.neg().sigmoid().mul(desirableWeight);
  const undesirable = distance.sigmoid().mul(undesirableWeight);
  return {
    loss: rows.weigh(desirable.where(isDesirable, undesirable)),
    rewards: logRatio.detach().mul(beta), // a metric carries no gradient
    kl,
  };
}

/** [] z. Detached: it is where the gains and losses are counted from, not something to be trained. */
function referencePoint({ klLogratios, klMask }: KtoLossInputs): Tensor {
  assertRank('ktoLoss', '[M]', { klLogratios, ...(klMask && { klMask }) });
  const values = klLogratios.detach();
  if (klMask !== undefined) assertSameShape('ktoLoss', '[M]', { klLogratios, klMask });
  const counted = klMask === undefined ? undefined : countedEntries(klMask);
  const count = counted === undefined ? values.numel : counted.sum().item();
  if (count === 0) {
    throw new ValueRangeError('ktoLoss: expected at least one counted log-ratio, received none.');
  }
  const read = counted === undefined ? values : values.where(counted, 0);
  return read.sum().div(count).clamp(0);
}
