/**
 * Sums worked out step by step by people who forget tens: answers that can be right by a wrong way. Text only; knows no
 * tokens and no models.
 *
 * `08+07+05+09=` is answered `15;20;29`: the sums so far, the last of which is the answer. Who writes `05` for 8 + 7 has
 * forgotten a ten; who then writes `20` has remembered it, and the answer is right though a step is wrong.
 * Two digits each, so that a small model soon learns where to look.
 */
import { SeededRandom } from '../data/random.js';
import { ValueRangeError } from '../errors/index.js';
import type { RewardFunction } from '../rewards/index.js';

/** Settings of `workedSumTask`. */
export interface WorkedSumTaskOptions {
  readonly seed: number;
  /** Different problems to train on. 8,000 unless set. */
  readonly trainCount?: number | undefined;
  /** Different problems that never occur in training. 200 unless set. */
  readonly heldOutCount?: number | undefined;
  /** The least and the most summands of a problem, from 2 to 11. 6 and 6 unless set. */
  readonly summands?: readonly [least: number, most: number] | undefined;
}

/** A problem with what a demonstrator wrote, right or not. (A type and not an interface, so that it is a data row.) */
export type WorkedSumDemonstration = { readonly prompt: string; readonly completion: string };

/** A problem with the right answer. (A type and not an interface, so that it is a data row.) */
export type WorkedSumProblem = { readonly prompt: string; readonly answer: string };

/** Everything to train and test on. */
export interface WorkedSumTask {
  /** Every character of the texts, each once. */
  readonly characters: string;
  /** One demonstration per training problem, in the same order. */
  readonly demonstrations: readonly WorkedSumDemonstration[];
  /** The training problems with right answers, for a reward. */
  readonly trainPrompts: readonly WorkedSumProblem[];
  /** Problems for evaluation. */
  readonly heldOut: readonly WorkedSumProblem[];
}

/** Stands between the steps of an answer. */
export const WORKED_SUM_SEPARATOR = ';';

const SUMMANDS = [6, 6] as const;

/** Their sums have two digits. */
const MOST_SUMMANDS = 11;

/** Of the problems with the most summands, so many at most are drawn: drawing until a new one comes stays quick. */
const MAX_SHARE = 0.8;

/** Of the steps that pass a ten, those in which it is forgotten. */
const FORGET_SHARE = 0.35;
/** Of the steps after a forgotten ten that forget none themselves, those in which it is remembered. */
const REMEMBER_SHARE = 0.15;
/** Of all steps, those that are off by one. */
const SLIP_SHARE = 0.03;

/**
 * Makes the task. The same options give the same texts in the same order.
 *
 * The summands of a problem are from 1 to 9. The demonstrator adds each to what was written before. A step that passes a
 * ten leaves it out in 0.35 of cases; after that, a step puts a missing ten back in 0.15 of cases; and 0.03 of all steps
 * are 1 too high or too low. Two fifths of the demonstrations end in the right answer, and a quarter of these have a wrong step.
 * Forgetting is the most frequent single mistake, so that a majority of answers may agree on it.
 *
 * Source: none; our own task.
 *
 * @throws ValueRangeError if a count is no positive integer, or more problems are asked for than can be drawn quickly
 */
export function workedSumTask(options: WorkedSumTaskOptions): WorkedSumTask {
  const { seed, trainCount = 8000, heldOutCount = 200, summands: size = SUMMANDS } = options;
  checkOptions({ trainCount, heldOutCount }, size);
  const random = new SeededRandom(seed);
  const taken = new Set<string>();
  // Held-out problems first: more training problems leave them as they are.
  const heldOut = drawProblems(heldOutCount, size, { random, taken });
  const train = drawProblems(trainCount, size, { random, taken });
  return {
    characters: '0123456789+=;',
    demonstrations: train.map((summands) => ({
      prompt: promptOf(summands),
      completion: demonstrate(summands, random).map(written).join(WORKED_SUM_SEPARATOR),
    })),
    trainPrompts: train.map(asRow),
    heldOut: heldOut.map(asRow),
  };
}

/** 1 where the last step is the answer of the row, whatever the steps before it; 0 otherwise. */
export const workedSumReward: RewardFunction = ({ completion, row }) =>
  completion.split(WORKED_SUM_SEPARATOR).at(-1) === row['answer'] ? 1 : 0;

/** The steps of an answer with what is known of each. */
export interface WorkedSumSteps {
  readonly steps: readonly string[];
  /** Whether each step and all before it are right: false at the first mistake and at everything after it. */
  readonly labels: readonly boolean[];
  /** Whether the last step is the answer. */
  readonly isRight: boolean;
  /** Whether every step is right and none is missing. */
  readonly isSound: boolean;
}

/**
 * Judges the steps of an answer by the sums so far.
 *
 * Source: the first mistake ends what is right: Lightman et al. 2023, arXiv:2305.20050, §2.6, who supervise up to the
 * first incorrect step. We differ in labelling the steps after it, as wrong, where they leave them out: what follows from
 * a wrong step, or makes up for it, is no right way to the answer.
 */
export function workedSumSteps(prompt: string, completion: string): WorkedSumSteps {
  const sums = sumsSoFar(prompt.replace(/=$/, '').split('+').map(Number)).map(written);
  const steps = completion.split(WORKED_SUM_SEPARATOR);
  const firstMistake = steps.findIndex((step, index) => step !== sums[index]);
  const rightSteps = firstMistake < 0 ? steps.length : firstMistake;
  return {
    steps,
    labels: steps.map((_, index) => index < rightSteps),
    isRight: steps.at(-1) === sums.at(-1),
    isSound: rightSteps === steps.length && steps.length === sums.length,
  };
}

function promptOf(summands: readonly number[]): string {
  return `${summands.map(written).join('+')}=`;
}

/** With two digits at least. */
function written(value: number): string {
  return String(value).padStart(2, '0');
}

function asRow(summands: readonly number[]): WorkedSumProblem {
  return { prompt: promptOf(summands), answer: written(sumsSoFar(summands).at(-1) ?? NaN) };
}

/** The sums after the second summand, the third, … */
function sumsSoFar(summands: readonly number[]): number[] {
  let sum = summands[0] ?? 0;
  return summands.slice(1).map((value) => (sum += value));
}

function drawProblems(
  count: number,
  [least, most]: readonly [number, number],
  { random, taken }: { random: SeededRandom; taken: Set<string> },
): number[][] {
  const problems: number[][] = [];
  while (problems.length < count) {
    const length = least + random.nextInt(most - least + 1);
    const summands = Array.from({ length }, () => 1 + random.nextInt(9));
    const prompt = promptOf(summands);
    if (taken.has(prompt)) continue;
    taken.add(prompt);
    problems.push(summands);
  }
  return problems;
}

function demonstrate(summands: readonly number[], random: SeededRandom): number[] {
  let sum = summands[0] ?? 0;
  let forgottenTens = 0;
  return summands.slice(1).map((value) => {
    // All are drawn at every step, so that what happens at one does not move the draws of the next.
    const [forgets, remembers, slips] = [
      random.nextFloat() < FORGET_SHARE,
      random.nextFloat() < REMEMBER_SHARE,
      random.nextFloat() < SLIP_SHARE,
    ];
    const slip = random.nextFloat() < 0.5 ? 1 : -1;
    const passesTen = Math.floor((sum + value) / 10) > Math.floor(sum / 10);
    sum += value;
    if (passesTen && forgets) {
      sum -= 10;
      forgottenTens += 1;
    } else if (forgottenTens > 0 && remembers) {
      sum += 10;
      forgottenTens -= 1;
    }
    if (slips) sum = Math.max(0, sum + slip);
    return sum;
  });
}

function checkOptions(
  counts: Readonly<{ trainCount: number; heldOutCount: number }>,
  [least, most]: readonly [number, number],
): void {
  for (const [name, value] of Object.entries(counts)) {
    if (Number.isInteger(value) && value >= 1) continue;
    throw new ValueRangeError(
      `workedSumTask: expected ${name} to be a positive integer, received ${value}.`,
    );
  }
  const areLengths = Number.isInteger(least) && Number.isInteger(most) && least >= 2;
  if (!areLengths || most < least || most > MOST_SUMMANDS) {
    throw new ValueRangeError(
      `workedSumTask: expected summands to be two integers from 2 to ${MOST_SUMMANDS} in order, received ${least} and ${most}.`,
    );
  }
  const wanted = counts.trainCount + counts.heldOutCount;
  const allowed = Math.floor(MAX_SHARE * 9 ** most);
  if (wanted > allowed) {
    throw new ValueRangeError(
      `workedSumTask: expected trainCount + heldOutCount of at most ${allowed}, received ${wanted}.`,
    );
  }
}
