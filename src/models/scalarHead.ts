/** The linear layer that reads one number from a hidden state: a value, a reward. */
import type { Linear } from '../nn/index.js';
import { tidy, type Dtype, type Tensor } from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import { createHead, readHead, type HeadOptions } from './head.js';

/** Options of `createScalarHead`. */
export type ScalarHeadOptions = HeadOptions;

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
  trunk: Pick<CausalLm, 'config' | 'dtype' | 'device'>,
  options: ScalarHeadOptions = {},
): Linear {
  return createHead('createScalarHead', trunk, { ...options, outputs: 1, bias: false });
}

/** A head and the constant that is added to what it reads. */
export interface ShiftedHead {
  /** [1, D] */
  readonly head: Linear;
  /** 0 where omitted. */
  readonly scoreShift?: number | undefined;
}

/**
 * What a scalar head reads from states, see `readHead`, and the constant added to it.
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
  return tidy(() => {
    const read = readHead(where, head, states, { dtype, outputs: 1 }).squeeze(-1);
    return scoreShift === 0 ? read : read.add(scoreShift);
  });
}
