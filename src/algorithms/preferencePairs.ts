/** The steps that every loss over completions or pairs of them shares. All tensors are [B]. */
import { ValueRangeError } from '../errors/index.js';
import type { Tensor } from '../torch/index.js';
import { countedWeights } from './counted.js';

/** What a loss on pairs returns. Add the rows to get the loss. */
export interface PreferenceLossOutput {
  /** [B] to minimise, times the weights where they are given. */
  readonly loss: Tensor;
  /** [B] the implicit reward of the chosen completions. Detached; 0 in a row with weight 0. */
  readonly chosenRewards: Tensor;
  /** [B] the same of the rejected ones. */
  readonly rejectedRewards: Tensor;
}

/** How rows are read and weighed. */
export interface Rows {
  /** The values where the row counts, 0 elsewhere. The gradient flows through. */
  readonly read: (values: Tensor) => Tensor;
  /** wᵢ·xᵢ, exactly 0 where the row does not count. */
  readonly weigh: (values: Tensor) => Tensor;
  /** [B] bool; undefined where every row counts. */
  readonly counted: Tensor | undefined;
}

/** @param weights [B] a constant; every row counts 1 without them, and one of weight 0 is never read */
export function rowsOf(weights: Tensor | undefined): Rows {
  if (weights === undefined) {
    return { read: (values) => values, weigh: (values) => values, counted: undefined };
  }
  const known = countedWeights(weights);
  return {
    read: (values) => values.where(known.counted, 0),
    weigh: (values) => values.mul(known.weights),
    counted: known.counted,
  };
}

/** The NLL term of a loss on pairs. */
export interface NllTerm {
  /** [B] nats. −log π_θ of the chosen completions, as sum or mean over tokens. A gradient flows through. */
  readonly chosenNll?: Tensor | undefined;
  /** At least 0. 1 when omitted. */
  readonly nllCoef?: number | undefined;
}

/**
 * loss + nllCoef·chosenNll, or the loss alone without chosenNll.
 *
 * @throws ValueRangeError for a negative coefficient, or a positive one without chosenNll
 */
export function addNll(where: string, loss: Tensor, term: NllTerm, rows: Rows): Tensor {
  const { chosenNll, nllCoef = 1 } = term;
  assertAtLeastZero(where, 'nllCoef', nllCoef);
  if (chosenNll === undefined) {
    if (term.nllCoef === undefined || nllCoef === 0) return loss;
    throw new ValueRangeError(
      `${where}: expected chosenNll with nllCoef ${nllCoef}, received none.`,
    );
  }
  return loss.add(rows.read(chosenNll).mul(nllCoef));
}

/** `value` is a finite number of at least 0. @throws ValueRangeError */
export function assertAtLeastZero(where: string, name: string, value: number): void {
  if (!(value >= 0 && Number.isFinite(value))) {
    throw new ValueRangeError(
      `${where}: expected ${name} to be a finite number of at least 0, received ${value}.`,
    );
  }
}

/** −log σ(x), finite for every finite x: log(σ(x)) is −∞ from −89 on in float32. */
export function negLogSigmoid(x: Tensor): Tensor {
  return x.logSigmoid().neg();
}
