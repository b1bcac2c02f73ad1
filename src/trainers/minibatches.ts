/** Minibatches of whole groups, and how many there are. */
import { SeededRandom } from '../data/index.js';
import { groupsOf } from './rolloutRecord.js';

/**
 * The rows in parts of equal size. Whole groups are shuffled, and their rows stay together and in order; where one part
 * takes everything, nothing is shuffled.
 *
 * @param partSize a multiple of groupSize that divides the number of rows
 */
export function groupMinibatches<Row>(
  rows: readonly Row[],
  options: { groupSize: number; partSize: number; seed: number },
): Row[][] {
  const { groupSize, partSize, seed } = options;
  if (partSize === rows.length) return [[...rows]];
  const groups = groupsOf(rows, groupSize);
  const order = new SeededRandom(seed).permutation(groups.length);
  const shuffled = Array.from(order, (group) => groups[group] ?? []).flat();
  return Array.from({ length: rows.length / partSize }, (_, part) =>
    shuffled.slice(part * partSize, (part + 1) * partSize),
  );
}

/** Optimizer steps that are planned for one rollout. */
export function updatesPerStep(config: {
  readonly updatesPerRollout: number;
  readonly promptsPerStep: number;
  readonly groupSize: number;
  readonly minibatchSize: number | null;
}): number {
  const rows = config.promptsPerStep * config.groupSize;
  return config.updatesPerRollout * (rows / (config.minibatchSize ?? rows));
}
