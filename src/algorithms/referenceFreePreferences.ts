/** Losses on pairs that need no reference model: SimPO, CPO and ORPO. */
import { assertPositive, assertSameShape, type Tensor } from '../torch/index.js';
import {
  addNll,
  assertAtLeastZero,
  negLogSigmoid,
  rowsOf,
  type PreferenceLossOutput,
  type Rows,
} from './preferencePairs.js';

/** What `simpoLoss` reads. */
export interface SimpoLossInputs {
  /** [B] nats per token. Mean log π_θ of the chosen completions: `sequenceLogprob` with `average`. With gradient. */
  readonly chosenLogprobs: Tensor;
  /** [B] nats per token. The same of the rejected ones. With gradient. */
  readonly rejectedLogprobs: Tensor;
  /** β > 0: the scale of the reward. */
  readonly beta: number;
  /** γ ≥ 0: by how much the reward of the chosen one should be ahead. */
  readonly gamma: number;
  /** [B] wᵢ, which multiplies row i of the loss. A row with weight 0 is never read. Constant; 1 when omitted. */
  readonly weights?: Tensor | undefined;
}

/** What `cpoLoss` reads. */
export interface CpoLossInputs {
  /** [B] nats. log π_θ of the whole chosen completions, from `sequenceLogprob`. With gradient. */
  readonly chosenLogprobs: Tensor;
  /** [B] nats. The same of the rejected ones. With gradient. */
  readonly rejectedLogprobs: Tensor;
  /** [B] nats. −log π_θ of the chosen completions, as sum or mean over tokens. With gradient. */
  readonly chosenNll?: Tensor | undefined;
  /** β > 0: the scale of the reward. */
  readonly beta: number;
  /** At least 0. 1 when omitted, and chosenNll is given. */
  readonly nllCoef?: number | undefined;
  /** [B] wᵢ, which multiplies row i of the loss. A row with weight 0 is never read. Constant; 1 when omitted. */
  readonly weights?: Tensor | undefined;
}

/** What `orpoLoss` reads. */
export interface OrpoLossInputs {
  /** [B] nats per token, below 0. Mean log π_θ of the chosen completions. With gradient. */
  readonly chosenLogprobs: Tensor;
  /** [B] nats per token, below 0. The same of the rejected ones. With gradient. */
  readonly rejectedLogprobs: Tensor;
  /** [B] nats. −log π_θ of the chosen completions, as sum or mean over tokens. With gradient. */
  readonly chosenNll: Tensor;
  /** β ≥ 0: the weight of the odds ratio, λ in the paper. */
  readonly beta: number;
  /** [B] wᵢ, which multiplies row i of the loss. A row with weight 0 is never read. Constant; 1 when omitted. */
  readonly weights?: Tensor | undefined;
}

/** What `orpoLoss` returns. */
export interface OrpoLossOutput extends PreferenceLossOutput {
  /** [B] nats. The log-odds ratio. Detached. */
  readonly logOddsRatio: Tensor;
}

/** The odds of a probability of 1 are infinite. Float32 does not tell 1 − 1e-8 from 1, and 1 − 1e-7 it does. */
const MAX_LOGPROB = -1e-7;

/**
 * Length-normalised log-probabilities as rewards, with a margin.
 *
 *     L = −log σ(β·(chosen − rejected) − γ)
 *
 * Source: Meng et al. 2024, arXiv:2405.14734, Eq. 6. TRL writes γ/β inside of the bracket, which is the same.
 *
 * @throws ShapeError unless all tensors have the shape [B] of chosenLogprobs
 * @throws ValueRangeError for a β that is not positive or a γ below 0
 */
export function simpoLoss(inputs: SimpoLossInputs): PreferenceLossOutput {
  const { beta, gamma, weights } = inputs;
  checkPairs('simpoLoss', inputs);
  assertPositive('simpoLoss', 'beta', beta);
  assertAtLeastZero('simpoLoss', 'gamma', gamma);
  const rows = rowsOf(weights);
  const { delta, rewards } = readPairs(inputs, rows);
  return { loss: rows.weigh(negLogSigmoid(delta.mul(beta).sub(gamma))), ...rewards };
}

/**
 * The DPO loss against a uniform reference, with the NLL of the chosen completion in the reference's place.
 *
 *     L = −log σ(β·(chosen − rejected)) + nllCoef·NLL
 *
 * Source: Xu et al. 2024, arXiv:2401.08417, Eq. 3–5. TRL takes its NLL as the mean over the tokens of the batch, the paper
 * as the log-probability of the completion; here it is what the caller passes.
 *
 * @throws ShapeError unless all tensors have the shape [B] of chosenLogprobs
 * @throws ValueRangeError for a β that is not positive, an nllCoef below 0, or one above 0 without chosenNll
 */
export function cpoLoss(inputs: CpoLossInputs): PreferenceLossOutput {
  const { beta, weights, chosenNll } = inputs;
  checkPairs('cpoLoss', inputs, chosenNll);
  assertPositive('cpoLoss', 'beta', beta);
  const rows = rowsOf(weights);
  const { delta, rewards } = readPairs(inputs, rows);
  const loss = addNll('cpoLoss', negLogSigmoid(delta.mul(beta)), inputs, rows);
  return { loss: rows.weigh(loss), ...rewards };
}

/**
 * Supervised training on the chosen completion, with the odds against the rejected one.
 *
 *     odds = p/(1 − p), p = e^(mean logprob)      L = NLL − β·log σ(log odds(chosen) − log odds(rejected))
 *
 * Source: Hong et al. 2024, arXiv:2403.07691, Eq. 3–7. A log-probability above −1e-7 counts as −1e-7 and has no
 * gradient in the odds: at 0 they are infinite, where TRL's loss has the gradient NaN.
 *
 * @throws ShapeError unless all tensors have the shape [B] of chosenLogprobs
 * @throws ValueRangeError for a β below 0
 */
export function orpoLoss(inputs: OrpoLossInputs): OrpoLossOutput {
  const { chosenLogprobs, rejectedLogprobs, chosenNll, beta, weights } = inputs;
  checkPairs('orpoLoss', inputs, chosenNll);
  assertAtLeastZero('orpoLoss', 'beta', beta);
  const rows = rowsOf(weights);
  const { rewards } = readPairs(inputs, rows);
  const ratio = logOdds(rows.read(chosenLogprobs)).sub(logOdds(rows.read(rejectedLogprobs)));
  const loss = rows.read(chosenNll).add(negLogSigmoid(ratio).mul(beta));
  return { loss: rows.weigh(loss), ...rewards, logOddsRatio: ratio.detach() };
}

/** log(p/(1 − p)) of p = eˡ. expm1 keeps the digits of 1 − p near p = 1. */
function logOdds(logprobs: Tensor): Tensor {
  const below = logprobs.clamp(null, MAX_LOGPROB);
  return below.sub(below.expm1().neg().log());
}

type Pairs = Pick<SimpoLossInputs, 'chosenLogprobs' | 'rejectedLogprobs' | 'beta' | 'weights'>;

function checkPairs(where: string, pairs: Pairs, chosenNll?: Tensor): void {
  const { chosenLogprobs, rejectedLogprobs, weights } = pairs;
  assertSameShape(where, '[B]', {
    chosenLogprobs,
    rejectedLogprobs,
    ...(chosenNll && { chosenNll }),
    ...(weights && { weights }),
  });
}

/** chosen − rejected with its gradient, and the rewards, which are metrics and carry none. */
function readPairs({ chosenLogprobs, rejectedLogprobs, beta }: Pairs, rows: Rows) {
  const [chosen, rejected] = [rows.read(chosenLogprobs), rows.read(rejectedLogprobs)];
  const chosenRewards = chosen.detach().mul(beta);
  const rejectedRewards = rejected.detach().mul(beta);
  return { delta: chosen.sub(rejected), rewards: { chosenRewards, rejectedRewards } };
}
