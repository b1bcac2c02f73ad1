/** The linear layer that reads one number from a hidden state: a value, a reward. */
import { ShapeError } from '../errors/index.js';
import { Linear } from '../nn/index.js';
import {
  assertPositive,
  deriveSeed,
  Generator,
  randn,
  showShape,
  tidy,
  zeros,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import type { CausalLm } from './causalLm.js';

/** Options of `createScalarHead`. */
export interface ScalarHeadOptions {
  /** A non-negative integer, 0 unless said. The same one gives the same weights in every dtype and on every device. */
  readonly seed?: number | undefined;
  /** Standard deviation of the weights, which are zero unless it is given; see `createScalarHead`. */
  readonly std?: number | undefined;
}

/** Options of `createScalarModel`. */
export interface ScalarModelOptions extends ScalarHeadOptions {
  /** The padding token that config.json names, where the trunk's names none. */
  readonly padTokenId?: number | undefined;
}

/**
 * A head for the states of `trunk`, [1, D] without bias, of its dtype and device.
 *
 * Zero unless `std` is given: a value function then starts at V = 0 for every state, so that the first advantages are
 * returns and nothing else, where random weights would add noise of the head's own to them. A head of zeros passes no
 * gradient to its trunk until its own first update. For a reward model `std` = 1/√(D + 1) is common (Stiennon et al.
 * 2020, arXiv:2009.01325, appendix B.1).
 *
 * @throws ValueRangeError unless `std` is positive
 */
export function createScalarHead(
  { config, dtype, device }: Pick<CausalLm, 'config' | 'dtype' | 'device'>,
  { seed = 0, std }: ScalarHeadOptions = {},
): Linear {
  const shape = [1, config.hiddenSize];
  if (std === undefined) return new Linear(zeros(shape, { dtype, device }));
  assertPositive('createScalarHead', 'std', std);
  const generator = new Generator(deriveSeed(seed, 'init', 'score.weight'));
  return new Linear(tidy(() => randn(shape, { generator }).mul(std).to({ dtype, device })));
}

/** A head and the constant that is added to what it reads. */
export interface ShiftedHead {
  /** [1, D] */
  readonly head: Linear;
  /** 0 where omitted. */
  readonly scoreShift?: number | undefined;
}

/**
 * What a head reads from states, in `dtype` whatever the dtype of states and weights is: 16 bits would round values of
 * different states to the same number.
 *
 * @param states [..., D]
 * @returns [...]
 * @throws ShapeError unless the head is [1, D]
 */
export function readScalars(
  where: string,
  { head, scoreShift = 0 }: ShiftedHead,
  states: Tensor,
  dtype: Dtype,
): Tensor {
  const { weight, bias } = head;
  const width = states.size(-1);
  if (weight.size(0) !== 1 || weight.size(1) !== width)
    throw new ShapeError(
      `${where}: expected a head with weight [1, ${width}], received ${showShape(weight.shape)}.`,
    );
  return tidy(() => {
    const read = states
      .to(dtype)
      .linear(weight.to(dtype), bias?.to(dtype) ?? null)
      .squeeze(-1);
    return scoreShift === 0 ? read : read.add(scoreShift);
  });
}
