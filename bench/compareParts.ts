/** How a part is timed with and without. */
import { Generator, randn, tidy, type Tensor } from '../src/torch/index.js';
import { median } from './statistics.js';

/** One part, switched on and off. */
export interface PartRow {
  readonly part: string;
  readonly with: number;
  readonly without: number;
}

/** Timed repetitions of either side. */
export const ROUNDS = 7;
const generator = new Generator(1);
/** Numbers of a normal distribution, the same ones in every process. */
export const random = (...shape: number[]): Tensor => randn(shape, { generator });

/** Milliseconds of both, medians of runs in turn. */
export function compare(part: string, on: () => void, off: () => void): PartRow {
  const times: [number[], number[]] = [[], []];
  for (let round = 0; round <= ROUNDS; round++)
    for (const [side, run] of [on, off].entries()) {
      const start = performance.now();
      tidy(run);
      if (round > 0) times[side]?.push(performance.now() - start);
    }
  const row = { part, with: median(times[0]), without: median(times[1]) };
  process.stderr.write(
    `${part}: ${row.with.toPrecision(3)} against ${row.without.toPrecision(3)} ms\n`,
  );
  return row;
}
