/**
 * Objectives on pairs written out: from whole forward passes, pair by pair, with nothing of src/algorithms or of the
 * trainers. What a step of them must have done to the parameters.
 */
import assert from 'node:assert/strict';
import { tokenizePreferences, rowsFromObjects, type PreferenceExample } from '../src/data/index.js';
import type { Decoder } from '../src/models/index.js';
import { AdamW, decayGroups } from '../src/optim/index.js';
import { noGrad, stack, tensor, type Tensor } from '../src/torch/index.js';
import { parameterValues, tinyModel, tinyTokenizer } from './tinyRun.js';

/** Pairs of different lengths, prompts that occur twice, chosen ones longer and shorter than rejected ones. */
export function tinyPairs(): PreferenceExample[] {
  const rows = [
    { prompt: 'a:', chosen: 'x', rejected: 'yz' },
    { prompt: 'bc:', chosen: 'yzx', rejected: 'x' },
    { prompt: 'cad:', chosen: 'zy', rejected: 'zx' },
    { prompt: 'd:', chosen: 'xxyyz', rejected: 'zz' },
    { prompt: 'a:', chosen: 'yx', rejected: 'x' },
  ];
  return tokenizePreferences(rowsFromObjects(rows, 'tiny'), tinyTokenizer(), { maxLength: 16 })
    .pairs;
}

/** [] log π of a whole completion, from logits of its own forward pass. */
export function completionLogprob(
  model: Decoder,
  promptIds: readonly number[],
  completionIds: readonly number[],
  temperature = 1,
): Tensor {
  const ids = [...promptIds, ...completionIds];
  const { logits } = model.forward({ inputIds: tensor([ids], { dtype: 'int64' }) });
  const logprobs = logits.select(0, 0).div(temperature).logSoftmax(-1);
  const terms = completionIds.map((id, at) =>
    logprobs.select(0, promptIds.length + at - 1).select(0, id),
  );
  return stack(terms).sum();
}

/** One pair by its numbers. */
export interface WrittenPair {
  /** [] with gradient */
  readonly chosen: Tensor;
  readonly rejected: Tensor;
  readonly refChosen: number;
  readonly refRejected: number;
  readonly chosenLength: number;
  readonly rejectedLength: number;
}

/** [] the loss of a batch of pairs. */
export type WrittenLoss = (pairs: readonly WrittenPair[]) => Tensor;

/** The mean of a loss that each pair has by itself. */
export const meanOf =
  (lossOf: (pair: WrittenPair) => Tensor): WrittenLoss =>
  (pairs) =>
    stack(pairs.map(lossOf)).mean();

export const written = (
  policy: Decoder,
  reference: Decoder,
  { promptIds, chosenIds, rejectedIds }: PreferenceExample,
): WrittenPair => ({
  chosen: completionLogprob(policy, promptIds, chosenIds),
  rejected: completionLogprob(policy, promptIds, rejectedIds),
  refChosen: noGrad(() => completionLogprob(reference, promptIds, chosenIds).item()),
  refRejected: noGrad(() => completionLogprob(reference, promptIds, rejectedIds).item()),
  chosenLength: chosenIds.length,
  rejectedLength: rejectedIds.length,
});

/** A policy and another reference, the same whenever they are made. */
export const pairModels = () => ({
  policy: tinyModel({ dtype: 'float64' }),
  reference: tinyModel({ seed: 2, dtype: 'float64' }).freeze(),
});

/** ε of Adam: large, or an entry whose gradient is rounding would step either way. */
export const EPS = 1e-2;

/** Loss, and parameters after one step of Adam on all pairs with the learning rate. */
export function writtenStep(
  lossOf: WrittenLoss,
  pairs: readonly PreferenceExample[],
  learningRate: number,
): { loss: number; after: Map<string, number[]> } {
  const { policy, reference } = pairModels();
  const loss = lossOf(pairs.map((pair) => written(policy, reference, pair)));
  loss.backward();
  const optimizer = new AdamW(decayGroups(policy, 0), { eps: EPS });
  optimizer.step(learningRate);
  return { loss: loss.item(), after: parameterValues(policy) };
}

const sigmoid = (x: Tensor): Tensor => x.neg().exp().add(1).reciprocal();
const logSigmoid = (x: Tensor): Tensor => sigmoid(x).log();
/** Log-ratios to the reference. */
const ratios = (pair: WrittenPair): [Tensor, Tensor] => [
  pair.chosen.sub(pair.refChosen),
  pair.rejected.sub(pair.refRejected),
];
const difference = (pair: WrittenPair): Tensor => {
  const [c, r] = ratios(pair);
  return c.sub(r);
};
const smoothed = (margin: Tensor, epsilon: number): Tensor =>
  logSigmoid(margin)
    .mul(-(1 - epsilon))
    .sub(logSigmoid(margin.neg()).mul(epsilon));

/** Numbers of one row of §5's table: β, ε, τ and δ. */
export interface Numbers {
  readonly beta: number;
  readonly epsilon: number;
  readonly tau: number;
  readonly delta: number;
}

/** The thirteen variants and sigmoid_norm, from the papers' formulas. */
export function writtenVariant(name: string, { beta, epsilon, tau, delta }: Numbers): WrittenLoss {
  const onMargin = (of: (margin: Tensor) => Tensor): WrittenLoss =>
    meanOf((pair) => of(difference(pair).mul(beta)));
  const onRatios = (of: (c: Tensor, r: Tensor) => Tensor): WrittenLoss =>
    meanOf((pair) => of(...ratios(pair)));
  const averaged = (pair: WrittenPair): Tensor => {
    const [c, r] = ratios(pair);
    return c.div(pair.chosenLength).sub(r.div(pair.rejectedLength));
  };
  switch (name) {
    case 'sigmoid':
      return onMargin((m) => smoothed(m, epsilon));
    case 'robust':
      return onMargin((m) =>
        logSigmoid(m)
          .mul(-(1 - epsilon))
          .add(logSigmoid(m.neg()).mul(epsilon))
          .div(1 - 2 * epsilon),
      );
    case 'hinge':
      return onMargin((m) => (m.item() < 1 ? m.neg().add(1) : m.mul(0)));
    case 'ipo':
      return meanOf((pair) =>
        averaged(pair)
          .sub(1 / (2 * beta))
          .pow(2),
      );
    case 'exo_pair':
      return onMargin((m) => {
        const q = sigmoid(m);
        const p = q.neg().add(1);
        return q.mul(q.log().sub(Math.log(1 - epsilon))).add(p.mul(p.log().sub(Math.log(epsilon))));
      });
    case 'nca_pair':
      return onRatios((c, r) =>
        logSigmoid(c.mul(beta))
          .add(logSigmoid(c.mul(-beta)).mul(0.5))
          .add(logSigmoid(r.mul(-beta)).mul(0.5))
          .neg(),
      );
    case 'bco_pair':
      return onRatios((c, r) =>
        logSigmoid(c.mul(beta).sub(delta))
          .add(logSigmoid(r.mul(beta).sub(delta).neg()))
          .neg(),
      );
    case 'sppo_hard':
      return onRatios((c, r) =>
        c
          .sub(0.5 / beta)
          .pow(2)
          .add(r.add(0.5 / beta).pow(2)),
      );
    case 'apo_zero':
      return onRatios((c, r) =>
        sigmoid(r.mul(beta))
          .sub(sigmoid(c.mul(beta)))
          .add(1),
      );
    case 'apo_down':
      return onRatios((c, r) =>
        sigmoid(c.mul(beta))
          .add(1)
          .sub(sigmoid(c.sub(r).mul(beta))),
      );
    case 'discopop':
      return onMargin((m) => {
        const modulation = sigmoid(m.div(tau));
        return logSigmoid(m).neg().mul(modulation.neg().add(1)).add(m.neg().exp().mul(modulation));
      });
    case 'sigmoid_norm':
      return meanOf((pair) => smoothed(averaged(pair).mul(beta), epsilon));
    case 'aot':
      return (pairs) => {
        const policy = ascending(pairs.map(({ chosen, rejected }) => chosen.sub(rejected)));
        const reference = pairs
          .map(({ refChosen, refRejected }) => refChosen - refRejected)
          .sort((a, b) => a - b);
        return stack(
          policy.map((margin, at) => smoothed(margin.sub(reference[at] ?? NaN).mul(beta), epsilon)),
        ).mean();
      };
    case 'aot_unpaired':
      return (pairs) => {
        const [chosen, rejected] = [0, 1].map((side) =>
          ascending(pairs.map((pair) => ratios(pair)[side as 0 | 1])),
        ) as [Tensor[], Tensor[]];
        return stack(
          chosen.map((c, at) => smoothed(c.sub(rejected[at] as Tensor).mul(beta), epsilon)),
        ).mean();
      };
    default:
      return assert.fail(`no formula of ${name}`);
  }
}

function ascending(values: readonly Tensor[]): Tensor[] {
  return [...values].sort((a, b) => a.item() - b.item());
}

/** [] −log π of the chosen completion per token. */
export const nll = ({ chosen, chosenLength }: WrittenPair): Tensor =>
  chosen.div(chosenLength).neg();

/** SimPO, Eq. 6. */
export const writtenSimpo = (beta: number, gamma: number): WrittenLoss =>
  meanOf((pair) =>
    logSigmoid(
      pair.chosen
        .div(pair.chosenLength)
        .sub(pair.rejected.div(pair.rejectedLength))
        .mul(beta)
        .sub(gamma),
    ).neg(),
  );

/** ORPO, Eq. 6 and 7: odds of the mean likelihood of a token. */
export const writtenOrpo = (beta: number): WrittenLoss =>
  meanOf((pair) => {
    const logOdds = (sum: Tensor, length: number): Tensor => {
      const p = sum.div(length).exp();
      return p.div(p.neg().add(1)).log();
    };
    const ratio = logOdds(pair.chosen, pair.chosenLength).sub(
      logOdds(pair.rejected, pair.rejectedLength),
    );
    return nll(pair).sub(logSigmoid(ratio).mul(beta));
  });

/** CPO, Eq. 5, with the likelihood per token. */
export const writtenCpo = (beta: number, nllCoef: number): WrittenLoss =>
  meanOf((pair) =>
    logSigmoid(pair.chosen.sub(pair.rejected).mul(beta)).neg().add(nll(pair).mul(nllCoef)),
  );
