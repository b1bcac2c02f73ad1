/** A linear layer that reads a few numbers from a hidden state, in place of an output layer or beside it. */
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

/** How a new head begins. */
export interface HeadOptions {
  /** A non-negative integer, 0 unless said. The same one gives the same weights in every dtype and on every device. */
  readonly seed?: number | undefined;
  /** Standard deviation of the weights, which are zero unless it is given. A bias is always zero. */
  readonly std?: number | undefined;
}

/**
 * A head for the states of `trunk`, [outputs, D], of its dtype and device. Internal to this folder.
 *
 * @param where the function that makes it, for messages
 * @throws ValueRangeError unless `std` is positive
 */
export function createHead(
  where: string,
  { config, dtype, device }: Pick<CausalLm, 'config' | 'dtype' | 'device'>,
  { outputs, bias, seed = 0, std }: HeadOptions & { outputs: number; bias: boolean },
): Linear {
  const shape = [outputs, config.hiddenSize];
  const offset = bias ? zeros([outputs], { dtype, device }) : null;
  if (std === undefined) return new Linear(zeros(shape, { dtype, device }), offset);
  assertPositive(where, 'std', std);
  const generator = new Generator(deriveSeed(seed, 'init', 'score.weight'));
  return new Linear(
    tidy(() => randn(shape, { generator }).mul(std).to({ dtype, device })),
    offset,
  );
}

/**
 * What a head reads from states, in `dtype` whatever the dtype of states and weights is: 16 bits would round values of
 * different states to the same number. Internal to this folder.
 *
 * @param states [..., D]
 * @param outputs how many numbers are asked for
 * @returns [..., outputs]
 * @throws ShapeError unless the head is [outputs, D]
 */
export function readHead(
  where: string,
  head: Linear,
  states: Tensor,
  { dtype, outputs }: { dtype: Dtype; outputs: number },
): Tensor {
  const { weight, bias } = head;
  const width = states.size(-1);
  if (weight.size(0) !== outputs || weight.size(1) !== width)
    throw new ShapeError(
      `${where}: expected a head with weight [${outputs}, ${width}], received ${showShape(weight.shape)}.`,
    );
  return tidy(() => states.to(dtype).linear(weight.to(dtype), bias?.to(dtype) ?? null));
}
