/**
 * Addition of numbers with a fixed number of digits: the quickstart's task. Text only; knows no tokens and no models.
 *
 * `407+086=` is answered `3940`: the sum 0493, least digit first, so that each digit of the answer depends on digits that
 * are already there. What ends an answer is the tokenizer's EOS token, which is not part of these texts.
 */
import { SeededRandom } from '../data/random.js';
import { DataError, ValueRangeError } from '../errors/index.js';

/** Settings of `additionTask`. */
export interface AdditionTaskOptions {
  /** Digits of each summand. 3 unless set. */
  readonly digits?: number | undefined;
  readonly seed: number;
  /** Different problems to train on. 20,000 unless set. */
  readonly trainCount?: number | undefined;
  /** Different problems that never occur in training, not even with the summands exchanged. 500 unless set. */
  readonly heldOutCount?: number | undefined;
  /** Share of demonstrations whose author forgets to carry. 0.6 unless set. */
  readonly carryFailureShare?: number | undefined;
}

/** A problem with what a demonstrator wrote, right or not. (A type and not an interface, so that it is a data row.) */
export type AdditionDemonstration = { readonly prompt: string; readonly completion: string };

/** A problem with the right answer. (A type and not an interface, so that it is a data row.) */
export type AdditionProblem = { readonly prompt: string; readonly answer: string };

/** Everything the quickstart trains and tests on. */
export interface AdditionTask {
  /** Every character of the texts, each once. */
  readonly characters: string;
  /** One demonstration per training problem, in the same order. */
  readonly demonstrations: readonly AdditionDemonstration[];
  /** The training problems with right answers, for a reward. */
  readonly trainPrompts: readonly AdditionProblem[];
  /** Problems for evaluation. */
  readonly heldOut: readonly AdditionProblem[];
}

/**
 * Makes the task. The same options give the same problems, in the same order.
 *
 * Whether an author forgets to carry is drawn for each demonstration. It shows only where there is something to carry:
 * with three digits about five problems in six have a carry (1 − 0.55³ ≈ 0.83).
 *
 * Source: none; our own task. Shares and counts are those of the experiment in which SFT reached about 30 % and GRPO 96 %
 * or more.
 *
 * @throws ValueRangeError if a count or share is out of range, or more problems are asked for than half of those there are
 */
export function additionTask(options: AdditionTaskOptions): AdditionTask {
  const { digits = 3, seed } = options;
  const { trainCount = 20_000, heldOutCount = 500, carryFailureShare = 0.6 } = options;
  checkOptions({ digits, trainCount, heldOutCount, carryFailureShare });

  const random = new SeededRandom(seed);
  const bound = 10 ** digits;
  const heldOutPairs = drawPairs(heldOutCount, {
    bound,
    random,
    unordered: true,
    exclude: new Set(),
  });
  const trainPairs = drawPairs(trainCount, {
    bound,
    random,
    unordered: false,
    exclude: new Set(heldOutPairs.map(([a, b]) => unorderedKey(a, b))),
  });

  const problem = ([a, b]: Pair): AdditionProblem => ({
    prompt: additionPrompt(a, b, digits),
    answer: additionAnswer(a, b, digits),
  });
  const demonstrations = trainPairs.map(([a, b]) => ({
    prompt: additionPrompt(a, b, digits),
    completion:
      random.nextFloat() < carryFailureShare
        ? additionWithoutCarry(a, b, digits)
        : additionAnswer(a, b, digits),
  }));
  const trainPrompts = trainPairs.map(problem);
  const heldOut = heldOutPairs.map(problem);
  assertDisjoint(trainPrompts, heldOut);
  return { characters: '0123456789+=', demonstrations, trainPrompts, heldOut };
}

/** `407+086=`: both summands with all their digits. */
export function additionPrompt(a: number, b: number, digits: number): string {
  const summand = (value: number): string => String(value).padStart(digits, '0');
  return `${summand(a)}+${summand(b)}=`;
}

/** `3940`: one digit more than the summands have, least digit first. */
export function additionAnswer(a: number, b: number, digits: number): string {
  return Array.from(String(a + b).padStart(digits + 1, '0'))
    .reverse()
    .join('');
}

/** What someone writes who adds digit by digit and forgets every carry: `3840` for 407 + 86. */
export function additionWithoutCarry(a: number, b: number, digits: number): string {
  let answer = '';
  for (let place = 0; place < digits; place++) {
    const digitOf = (value: number): number => Math.floor(value / 10 ** place) % 10;
    answer += (digitOf(a) + digitOf(b)) % 10;
  }
  return `${answer}0`;
}

/**
 * Checks that no held-out problem is also trained, nor the same one with its summands exchanged.
 *
 * @throws DataError that names the first problem found on both sides
 */
export function assertDisjoint(
  train: readonly { readonly prompt: string }[],
  heldOut: readonly { readonly prompt: string }[],
): void {
  const trained = new Set(train.map(({ prompt }) => prompt));
  for (const { prompt } of heldOut) {
    const exchanged = prompt.replace(/^(\d+)\+(\d+)=$/, '$2+$1=');
    const found = [prompt, exchanged].find((text) => trained.has(text));
    if (found === undefined) continue;
    throw new DataError(
      `assertDisjoint: expected held-out problems that are never trained, but ${JSON.stringify(prompt)} is trained as ${JSON.stringify(found)}.`,
    );
  }
}

type Pair = readonly [a: number, b: number];

/** The same for a + b and b + a. Exact: summands have at most 7 digits. */
function unorderedKey(a: number, b: number): number {
  return Math.min(a, b) * 1e7 + Math.max(a, b);
}

/** Draws different pairs of summands, none of which is excluded in either order. */
function drawPairs(
  count: number,
  from: {
    bound: number;
    random: SeededRandom;
    /** Whether a + b and b + a count as the same problem. */
    unordered: boolean;
    exclude: ReadonlySet<number>;
  },
): Pair[] {
  const seen = new Set<number>();
  const pairs: Pair[] = [];
  while (pairs.length < count) {
    const a = from.random.nextInt(from.bound);
    const b = from.random.nextInt(from.bound);
    const key = from.unordered ? unorderedKey(a, b) : a * 1e7 + b;
    if (seen.has(key) || from.exclude.has(unorderedKey(a, b))) continue;
    seen.add(key);
    pairs.push([a, b]);
  }
  return pairs;
}

function checkOptions(options: {
  digits: number;
  trainCount: number;
  heldOutCount: number;
  carryFailureShare: number;
}): void {
  const { digits, trainCount, heldOutCount, carryFailureShare } = options;
  const refuse = (expected: string, received: number): never => {
    throw new ValueRangeError(`additionTask: expected ${expected}, received ${received}.`);
  };
  if (!Number.isInteger(digits) || digits < 1 || digits > 7) refuse('digits from 1 to 7', digits);
  for (const [name, value] of Object.entries({ trainCount, heldOutCount })) {
    if (!Number.isInteger(value) || value < 1) refuse(`${name} to be a positive integer`, value);
  }
  if (!(carryFailureShare >= 0 && carryFailureShare <= 1)) {
    refuse('carryFailureShare from 0 to 1', carryFailureShare);
  }
  // A held-out problem takes two ordered ones away. Beyond half, drawing again and again would take long.
  const wanted = trainCount + 2 * heldOutCount;
  const available = 10 ** (2 * digits) / 2;
  if (wanted > available) {
    refuse(`trainCount + 2 · heldOutCount of at most ${available} with ${digits} digits`, wanted);
  }
}
