/**
 * Where DPO ends, by exact expectations: three prompts with four, three and five completions, a tabular softmax policy.
 * Every ordered pair of a prompt is a row that weighs how often it is shown times the Bradley–Terry probability of its
 * order, so that nothing is sampled.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { f64, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import { cat, tensor, tidy, type Tensor } from '../torch/index.js';
import { dpoLoss, type DpoLossInputs } from './index.js';

const BETA = 0.4;
/** The reward of each completion, by prompt. */
const REWARDS = [
  [1, -0.4, 0.3, 0.2],
  [-0.8, 0.5, 0.1],
  [0.6, 0, -0.3, 0.9, -0.5],
];
/** π_ref, by prompt. */
const REFERENCE = [
  [0.1, 0.4, 0.2, 0.3],
  [0.5, 0.2, 0.3],
  [0.05, 0.35, 0.25, 0.15, 0.2],
];
const PROMPTS = [0, 1, 2];
const SIZES = [4, 3, 5];
const FIRST = [0, 4, 7];

type Rewards = readonly (readonly number[])[];
interface Pair {
  readonly prompt: number;
  readonly chosen: number;
  readonly rejected: number;
}
const pairs: Pair[] = PROMPTS.flatMap((prompt) => {
  const completions = Array.from({ length: SIZES[prompt] ?? 0 }, (_, index) => index);
  return completions.flatMap((chosen) =>
    completions
      .filter((rejected) => rejected !== chosen)
      .map((rejected) => ({ prompt, chosen, rejected })),
  );
});
const indexOf = (side: 'chosen' | 'rejected'): Tensor =>
  tensor(BigInt64Array.from(pairs.map((pair) => BigInt((FIRST[pair.prompt] ?? 0) + pair[side]))));
const [chosenIndex, rejectedIndex] = [indexOf('chosen'), indexOf('rejected')];
const refLogprobs = f64(REFERENCE.flat()).log();
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

const at = (table: readonly (readonly number[])[], prompt: number, index: number): number =>
  table[prompt]?.[index] ?? NaN;

/** How probable it is that the chosen one of the pair is preferred, when labels are flipped at this rate. */
function preference(
  { prompt, chosen, rejected }: Pair,
  rewards: Rewards = REWARDS,
  flipRate = 0,
): number {
  const clean = sigmoid(at(rewards, prompt, chosen) - at(rewards, prompt, rejected));
  return (1 - flipRate) * clean + flipRate * (1 - clean);
}

/** How often each pair is shown, its order aside. */
type Shown = (pair: Pair) => number;
const equally: Shown = ({ prompt }) => 1 / ((SIZES[prompt] ?? 0) * ((SIZES[prompt] ?? 0) - 1));
const asSampled: Shown = ({ prompt, chosen, rejected }) =>
  at(REFERENCE, prompt, chosen) * at(REFERENCE, prompt, rejected);

interface Setting extends Partial<
  Pick<
    DpoLossInputs,
    'variant' | 'labelSmoothing' | 'fDivergence' | 'alphaDivergenceCoef' | 'referenceFree'
  >
> {
  readonly shown?: Shown;
  readonly rewards?: Rewards;
  readonly flipRate?: number;
  /** Of the gradient descent. */
  readonly learningRate?: number;
}

/** [12] log π of every completion, from logits. */
function tableOf(logits: Tensor): Tensor {
  return cat(
    PROMPTS.map((prompt) => logits.narrow(0, FIRST[prompt] ?? 0, SIZES[prompt] ?? 0).logSoftmax(0)),
    0,
  );
}

/** The expected loss over all pairs. */
function objective(logprobs: Tensor, setting: Setting): Tensor {
  const { shown = equally, rewards = REWARDS, flipRate, variant = 'sigmoid' } = setting;
  const { labelSmoothing, fDivergence, alphaDivergenceCoef, referenceFree } = setting;
  const reference = {
    refChosenLogprobs: refLogprobs.indexSelect(0, chosenIndex),
    refRejectedLogprobs: refLogprobs.indexSelect(0, rejectedIndex),
  };
  const { loss } = dpoLoss({
    policyChosenLogprobs: logprobs.indexSelect(0, chosenIndex),
    policyRejectedLogprobs: logprobs.indexSelect(0, rejectedIndex),
    ...(referenceFree === true ? {} : reference),
    beta: BETA,
    variant,
    weights: f64(pairs.map((pair) => shown(pair) * preference(pair, rewards, flipRate))),
    labelSmoothing,
    fDivergence,
    alphaDivergenceCoef,
    referenceFree,
  });
  return loss.sum();
}

/** [12] log π where gradient descent on the logits ends, from the reference. */
function fixedPoint(setting: Setting): number[] {
  const { learningRate = 20 } = setting;
  let logits = REFERENCE.flat().map(Math.log);
  for (let step = 0; step < 600; step++) {
    logits = tidy(() => {
      const live = leaf(logits);
      objective(tableOf(live), setting).backward();
      return live.detach().sub(gradientOf(live).mul(learningRate)).toArray() as number[];
    });
  }
  return tableOf(f64(logits)).toArray() as number[];
}

/** The values of a flat table, by prompt. */
function byPrompt(values: readonly number[]): number[][] {
  return PROMPTS.map((prompt) =>
    values.slice(FIRST[prompt], (FIRST[prompt] ?? 0) + (SIZES[prompt] ?? 0)),
  );
}

/** log Z of each prompt: Z = Σ π_ref·exp(r/β). */
const LOG_PARTITIONS = REWARDS.map((row, prompt) =>
  Math.log(
    row.reduce((sum, reward, y) => sum + at(REFERENCE, prompt, y) * Math.exp(reward / BETA), 0),
  ),
);
/** [12] log π*, π* = π_ref·exp(r/β)/Z. */
const OPTIMUM = REWARDS.flatMap((row, prompt) =>
  row.map(
    (reward, y) =>
      Math.log(at(REFERENCE, prompt, y)) + reward / BETA - (LOG_PARTITIONS[prompt] ?? NaN),
  ),
);

/** The largest KL(π ‖ π*) of a prompt, nats. */
function distance(logprobs: readonly number[], optimum = OPTIMUM): number {
  const terms = logprobs.map((logprob, i) => Math.exp(logprob) * (logprob - (optimum[i] ?? NaN)));
  return Math.max(...byPrompt(terms).map((row) => row.reduce((sum, term) => sum + term, 0)));
}

/** The implicit rewards β·f′(π/π_ref) less r: one number per completion. */
function remainders(logprobs: readonly number[], fPrime: (logRatio: number) => number): number[][] {
  const reference = REFERENCE.flat();
  const rewards = REWARDS.flat();
  return byPrompt(
    logprobs.map(
      (logprob, i) => BETA * fPrime(logprob - Math.log(reference[i] ?? NaN)) - (rewards[i] ?? NaN),
    ),
  );
}

describe('DPO on all Bradley–Terry pairs', () => {
  test('reaches π_ref·exp(r/β)/Z on every prompt', () => {
    const policy = fixedPoint({});
    assert.ok(distance(policy) <= 1e-10, `distance ${distance(policy)}`);
    expectClose(policy, OPTIMUM, { rtol: 1e-6 });
  });

  test('however often each pair is shown', () => {
    const policy = fixedPoint({ shown: asSampled });
    assert.ok(distance(policy) <= 1e-10, `distance ${distance(policy)}`);
  });

  test('the reference is not the optimum, so that the claims above can fail', () => {
    const reference = REFERENCE.flat().map(Math.log);
    assert.ok(distance(reference) > 0.1, `distance ${distance(reference)}`);
  });

  test('without the reference it ends at exp(r/β)/Z, elsewhere', () => {
    const policy = fixedPoint({ referenceFree: true });
    const uniform = byPrompt(REWARDS.flat().map((reward) => reward / BETA)).flatMap(
      (row) => f64(row).logSoftmax(0).toArray() as number[],
    );
    assert.ok(distance(policy, uniform) <= 1e-10, `distance ${distance(policy, uniform)}`);
    assert.ok(distance(policy) > 0.1, `distance ${distance(policy)}`);
  });

  test('the optimum is that of E[r] − β·KL(π ‖ π_ref): its gradient is 0 there, and not before', () => {
    const gradient = (logits: readonly number[]) =>
      tidy(() => {
        const live = leaf([...logits]);
        const logprobs = tableOf(live);
        const kl = logprobs.sub(refLogprobs).mul(BETA);
        logprobs.exp().mul(f64(REWARDS.flat()).sub(kl)).sum().backward();
        return { norm: gradientOf(live).norm().item() };
      }).norm;
    assert.ok(gradient(fixedPoint({})) < 1e-7, 'the policy that DPO ends at is not stationary');
    assert.ok(gradient(REFERENCE.flat().map(Math.log)) > 0.1, 'the reference is stationary');
  });
});

describe('the implicit reward', () => {
  test('β·log(π/π_ref) is r less β·log Z, one constant per prompt', () => {
    const found = remainders(fixedPoint({}), (logRatio) => logRatio);
    const expected = REWARDS.map((row, prompt) =>
      row.map(() => -BETA * (LOG_PARTITIONS[prompt] ?? NaN)),
    );
    expectClose(found.flat(), expected.flat(), { rtol: 0, atol: 1e-6 });
    const [first = NaN, second = NaN] = LOG_PARTITIONS;
    assert.ok(Math.abs(first - second) > 0.1, 'the partition functions must differ');
  });

  test('the partition function cancels: rewards shifted per prompt have the same loss and gradient', () => {
    const shifts = [7, -3, 0.5];
    const shifted = REWARDS.map((row, prompt) =>
      row.map((reward) => reward + (shifts[prompt] ?? NaN)),
    );
    const [plain, other] = [REWARDS, shifted].map((rewards) => {
      const live = leaf(REFERENCE.flat().map((p, i) => Math.log(p) + 0.1 * i));
      const loss = objective(tableOf(live), { rewards });
      loss.backward();
      return [loss.item(), ...(gradientOf(live).toArray() as number[])];
    });
    expectClose(other ?? [], plain ?? [], { rtol: 1e-12, atol: 1e-15 });
  });

  test('the partition function cancels: with Z in it or not, β·log(π*/π_ref) tells every pair alike', () => {
    for (const pair of pairs) {
      const implicit = (y: number, logPartition: number) => {
        const i = (FIRST[pair.prompt] ?? 0) + y;
        const logRatio = (OPTIMUM[i] ?? NaN) - Math.log(at(REFERENCE, pair.prompt, y));
        return BETA * (logRatio + logPartition);
      };
      for (const logPartition of [0, LOG_PARTITIONS[pair.prompt] ?? NaN]) {
        const margin = implicit(pair.chosen, logPartition) - implicit(pair.rejected, logPartition);
        expectClose(sigmoid(margin), preference(pair), { rtol: 1e-12 });
      }
    }
  });

  const DIVERGENCES = {
    forward_kl: (logRatio: number) => 1 - Math.exp(-logRatio),
    js_divergence: (logRatio: number) => Math.LN2 - Math.log1p(Math.exp(-logRatio)),
    alpha_divergence: (logRatio: number) => (Math.exp(-0.6 * logRatio) - 1) / -0.6,
  };
  for (const [name, fPrime] of Object.entries(DIVERGENCES)) {
    test(`under ${name}, β·f′(π/π_ref) is r less one constant per prompt`, () => {
      const fDivergence = name as keyof typeof DIVERGENCES;
      const learningRate = 8; // 1/u is steep where the policy is below the reference
      const policy = fixedPoint({ fDivergence, alphaDivergenceCoef: 0.4, learningRate });
      for (const row of remainders(policy, fPrime)) {
        const [first = NaN] = row;
        expectClose(
          row,
          row.map(() => first),
          { rtol: 0, atol: 1e-5 },
        );
      }
      assert.ok(distance(policy) > 1e-3, 'the reverse KL has the same optimum');
    });
  }
});

describe('with labels flipped at a rate of 0.2', () => {
  const flipRate = 0.2;
  test('robust with ε = 0.2 still reaches π_ref·exp(r/β)/Z', () => {
    const policy = fixedPoint({ variant: 'robust', labelSmoothing: 0.2, flipRate });
    assert.ok(distance(policy) <= 1e-10, `distance ${distance(policy)}`);
  });
  test('sigmoid stays nearer to the reference', () => {
    const policy = fixedPoint({ flipRate });
    assert.ok(distance(policy) > 0.01, `distance ${distance(policy)}`);
  });
  test('smoothing in sigmoid is another thing: on clean labels it ends where flipped ones lead', () => {
    const smoothed = fixedPoint({ labelSmoothing: 0.2 });
    expectClose(smoothed, fixedPoint({ flipRate }), { rtol: 1e-6 });
  });
});

describe('one step on one pair, where completions share a parameter', () => {
  // Logits θ·φ of a chosen, a rejected and a third completion. At θ = 0 all are equally likely, and
  // d log π/dθ = φ − mean φ = 2/15, 14/15 and −16/15: what lowers the rejected one lowers the chosen one too.
  const features = f64([1.2, 2, 0]);
  const reference = f64([0, 0, 0]).logSoftmax(0);

  /** How the log-probabilities of chosen, rejected and third completion move. */
  function moves(nllCoef: number): number[] {
    const theta = leaf([0]);
    const logprobsAt = (parameter: Tensor) => features.mul(parameter).logSoftmax(0);
    const logprobs = logprobsAt(theta);
    const { loss } = dpoLoss({
      policyChosenLogprobs: logprobs.narrow(0, 0, 1),
      policyRejectedLogprobs: logprobs.narrow(0, 1, 1),
      refChosenLogprobs: reference.narrow(0, 0, 1),
      refRejectedLogprobs: reference.narrow(0, 1, 1),
      beta: 0.1,
      variant: 'sigmoid',
      chosenNll: logprobs.narrow(0, 0, 1).neg(),
      nllCoef,
    });
    loss.sum().backward();
    const stepped = theta.detach().sub(gradientOf(theta));
    return logprobsAt(stepped).sub(reference).toArray() as number[];
  }

  test('both rewards fall and the margin rises: the probability goes to a third completion (T24)', () => {
    const [chosen = NaN, rejected = NaN, third = NaN] = moves(0);
    assert.ok(chosen < 0 && rejected < chosen && third > 0, `${chosen}, ${rejected}, ${third}`);
  });
  test('with the NLL term the chosen one rises', () => {
    const [chosen = NaN] = moves(1);
    assert.ok(chosen > 0, `${chosen}`);
  });
});
