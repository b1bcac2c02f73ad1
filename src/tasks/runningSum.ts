/**
 * Sums of several digits with the sums so far written out: answers whose length varies. Text only; knows no tokens and no
 * models.
 *
 * `3+8+5=` is answered `11,16;16`: the sums so far, then the answer after `;`. Careful and hasty demonstrators, those who
 * slip, and those who check themselves again and again write answers of very different lengths for the same problem.
 */
import { SeededRandom } from '../data/random.js';
import { ValueRangeError } from '../errors/index.js';
import type { RewardFunction } from '../rewards/index.js';

/** Settings of `runningSumTask`. */
export interface RunningSumTaskOptions {
  readonly seed: number;
  /** Different problems to train on. 8,000 unless set. */
  readonly trainCount?: number | undefined;
  /** Different problems that never occur in training. 400 unless set. */
  readonly heldOutCount?: number | undefined;
}

/** A problem with what a demonstrator wrote, right or not. (A type and not an interface, so that it is a data row.) */
export type RunningSumDemonstration = { readonly prompt: string; readonly completion: string };

/** A problem with the right answer. (A type and not an interface, so that it is a data row.) */
export type RunningSumProblem = { readonly prompt: string; readonly answer: string };

/** Everything to train and test on. */
export interface RunningSumTask {
  /** Every character of the texts, each once. */
  readonly characters: string;
  /** One demonstration per training problem, in the same order. */
  readonly demonstrations: readonly RunningSumDemonstration[];
  /** The training problems with right answers, for a reward. */
  readonly trainPrompts: readonly RunningSumProblem[];
  /** Problems for evaluation. */
  readonly heldOut: readonly RunningSumProblem[];
}

const MIN_SUMMANDS = 3;
const MAX_SUMMANDS = 5;

/** Far fewer than there are (9⁵ of five summands alone), so that drawing until a new one comes stays quick. */
const MAX_PROBLEMS = 20_000;

/**
 * Makes the task. The same options give the same texts in the same order.
 *
 * A problem has 3 to 5 summands from 1 to 9, those of 3 more rarely, since there are only 729. Demonstrators: 0.25 write the sums so far and are right; 0.35 do, and one of
 * their sums is off by 1 or 2, with what follows from it; 0.15 give a number at once, which is off by up to 3; 0.25 write
 * the sums two to four times (`?` between) before they answer, rightly. With five summands the last kind writes up
 * to 50 characters, the first one 14.
 *
 * Source: none; our own task.
 *
 * @throws ValueRangeError if a count is no positive integer, or more problems are asked for than can be drawn quickly
 */
export function runningSumTask(options: RunningSumTaskOptions): RunningSumTask {
  const { seed, trainCount = 8000, heldOutCount = 400 } = options;
  checkCounts({ trainCount, heldOutCount });
  const random = new SeededRandom(seed);
  const taken = new Set<string>();
  // Held-out problems first: more training problems leave them as they are.
  const heldOut = drawProblems(heldOutCount, random, taken);
  const train = drawProblems(trainCount, random, taken);
  return {
    characters: '0123456789+=,;?',
    demonstrations: train.map((summands) => ({
      prompt: promptOf(summands),
      completion: demonstrate(summands, random),
    })),
    trainPrompts: train.map(asRow),
    heldOut: heldOut.map(asRow),
  };
}

/** 1 where what stands after the last `;`, or all where there is none, is the answer of the row; 0 otherwise. */
export const runningSumReward: RewardFunction = ({ completion, row }) =>
  completion.split(';').at(-1) === row['answer'] ? 1 : 0;

function promptOf(summands: readonly number[]): string {
  return `${summands.join('+')}=`;
}

function asRow(summands: readonly number[]): RunningSumProblem {
  return {
    prompt: promptOf(summands),
    answer: String(summands.reduce((sum, value) => sum + value, 0)),
  };
}

function drawProblems(count: number, random: SeededRandom, taken: Set<string>): number[][] {
  const problems: number[][] = [];
  while (problems.length < count) {
    const size = MIN_SUMMANDS + random.nextInt(MAX_SUMMANDS - MIN_SUMMANDS + 1);
    const summands = Array.from({ length: size }, () => 1 + random.nextInt(9));
    const prompt = promptOf(summands);
    if (taken.has(prompt)) continue;
    taken.add(prompt);
    problems.push(summands);
  }
  return problems;
}

function demonstrate(summands: readonly number[], random: SeededRandom): string {
  // All are drawn for every problem, so that one kind's draws do not move those of the next problem.
  const kind = random.nextFloat();
  const place = 1 + random.nextInt(summands.length - 1);
  const offset = (1 + random.nextInt(2)) * (random.nextFloat() < 0.5 ? 1 : -1);
  const guess = random.nextInt(7) - 3;
  const passes = 2 + random.nextInt(3);
  const right = sumsSoFar(summands, 0, 0);
  const total = right.at(-1) ?? 0;
  if (kind < 0.25) return `${right.join(',')};${total}`;
  if (kind < 0.6) {
    const slipped = sumsSoFar(summands, place, offset);
    return `${slipped.join(',')};${slipped.at(-1) ?? 0}`;
  }
  if (kind < 0.75) return String(Math.max(0, total + guess));
  return `${Array.from({ length: passes }, () => right.join(',')).join('?')};${total}`;
}

/** The sums after the second summand, the third, …; from the one at `place` on they are off by `offset`. */
function sumsSoFar(summands: readonly number[], place: number, offset: number): number[] {
  let sum = summands[0] ?? 0;
  return summands.slice(1).map((value, index) => {
    sum += value + (index + 1 === place ? offset : 0);
    return sum;
  });
}

function checkCounts(counts: Readonly<{ trainCount: number; heldOutCount: number }>): void {
  for (const [name, value] of Object.entries(counts)) {
    if (Number.isInteger(value) && value >= 1) continue;
    throw new ValueRangeError(
      `runningSumTask: expected ${name} to be a positive integer, received ${value}.`,
    );
  }
  const wanted = counts.trainCount + counts.heldOutCount;
  if (wanted > MAX_PROBLEMS) {
    throw new ValueRangeError(
      `runningSumTask: expected trainCount + heldOutCount of at most ${MAX_PROBLEMS}, received ${wanted}.`,
    );
  }
}
