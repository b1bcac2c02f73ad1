/**
 * Arithmetic that takes a calculator: the task of `calculatorEnvironment`. Text only; knows no tokens and no models.
 *
 * `17*46-8:` is answered `774`. A small model cannot multiply in its head; it can write `17*46-8=`, read `774;` and write
 * `774`. What ends an answer is the tokenizer's EOS token, which is not part of these texts.
 */
import { SeededRandom } from '../data/random.js';
import { ValueRangeError } from '../errors/index.js';

/** Settings of `calculatorTask`. */
export interface CalculatorTaskOptions {
  readonly seed: number;
  /** Different problems to train on. 20,000 unless set. */
  readonly trainCount?: number | undefined;
  /** Different problems that never occur in training, not even with the first factors exchanged. 500 unless set. */
  readonly heldOutCount?: number | undefined;
  /** Share of demonstrations whose author calls the calculator; the others guess, and wrongly. 0.7 unless set. */
  readonly toolShare?: number | undefined;
  /** Share of the calls that leave out a last term which is subtracted or multiplied. 0.8 unless set. */
  readonly wrongCallShare?: number | undefined;
}

/**
 * A problem with what a demonstrator wrote, right or not, and what the calculator answered in between:
 * `17*46-8=774;774` for two turns, `760` for one. (A type and not an interface, so that it is a data row.)
 */
export type CalculatorDemonstration = { readonly prompt: string; readonly completion: string };

/** A problem with the right answer. (A type and not an interface, so that it is a data row.) */
export type CalculatorProblem = { readonly prompt: string; readonly answer: string };

/** Everything to train and test on. */
export interface CalculatorTask {
  /** Every character of the texts and of what the calculator may say, each once. */
  readonly characters: string;
  /** One demonstration per training problem, in the same order. */
  readonly demonstrations: readonly CalculatorDemonstration[];
  /** The training problems with right answers, for a reward. */
  readonly trainPrompts: readonly CalculatorProblem[];
  /** Problems for evaluation. */
  readonly heldOut: readonly CalculatorProblem[];
}

/**
 * Makes the task. The same options give the same problems, in the same order.
 *
 * A problem multiplies two numbers of two digits and then adds, subtracts or multiplies one of 2 to 9; prompts have 8
 * characters and demonstrations at most 19. Demonstrators are imperfect in two ways. Some guess at once and get the last
 * two digits wrong. Those who call the calculator copy its answer, but often leave out the last term, unless it is added.
 * The share of right demonstrations is toolShare·(1 − ⅔·wrongCallShare), 0.33 as set here. Whoever imitates them at
 * temperature 0 is right where the most frequent behaviour is: on sums, a third of the problems.
 *
 * Completions are texts to imitate as a whole: supervised fine-tuning may train the calculator's part with the rest. That
 * teaches guesses of products which nobody will read, since in an episode the environment speaks for itself.
 *
 * Source: none; our own task.
 *
 * @throws ValueRangeError if a count or share is out of range, or more problems are asked for than half of those there are
 */
export function calculatorTask(options: CalculatorTaskOptions): CalculatorTask {
  const { seed, trainCount = 20_000, heldOutCount = 500 } = options;
  const { toolShare = 0.7, wrongCallShare = 0.8 } = options;
  checkOptions({ trainCount, heldOutCount, toolShare, wrongCallShare });

  const random = new SeededRandom(seed);
  const taken = new Set<string>();
  // Held-out problems are drawn first and take both orders of their factors; what is trained takes one.
  const heldOutProblems = draw(heldOutCount, random, taken, exchanged);
  const trainProblems = draw(trainCount, random, taken, () => []);

  const demonstrations = trainProblems.map((problem) => {
    // All are drawn for every problem, so that a share changes only those demonstrations that it is about.
    const calls = random.nextFloat() < toolShare;
    const forgets = random.nextFloat() < wrongCallShare && problem.operator !== '+';
    const offset = 1 + random.nextInt(99);
    const { prompt } = asRow(problem);
    if (!calls) return { prompt, completion: wrongGuess(valueOf(problem), offset) };
    const { a, b } = problem;
    return {
      prompt,
      completion: forgets
        ? callAndCopy(`${a}*${b}`, a * b)
        : callAndCopy(expressionOf(problem), valueOf(problem)),
    };
  });
  return {
    characters: '0123456789+-*=:;?',
    demonstrations,
    trainPrompts: trainProblems.map(asRow),
    heldOut: heldOutProblems.map(asRow),
  };
}

const OPERATORS = ['+', '-', '*'] as const;
const FACTORS = 90;
const LAST_TERMS = 8;

/** a·b and then the operator with c. */
interface Problem {
  /** 10 to 99 */
  readonly a: number;
  /** 10 to 99 */
  readonly b: number;
  readonly operator: (typeof OPERATORS)[number];
  /** 2 to 9: leaving out the last term always changes the value. */
  readonly c: number;
}

function expressionOf({ a, b, operator, c }: Problem): string {
  return `${a}*${b}${operator}${c}`;
}

function valueOf({ a, b, operator, c }: Problem): number {
  const product = a * b;
  if (operator === '*') return product * c;
  return operator === '+' ? product + c : product - c;
}

function asRow(problem: Problem): CalculatorProblem {
  return { prompt: `${expressionOf(problem)}:`, answer: String(valueOf(problem)) };
}

function exchanged(problem: Problem): Problem[] {
  return [{ ...problem, a: problem.b, b: problem.a }];
}

/** What the model writes, the calculator answers and the model copies. */
function callAndCopy(expression: string, value: number): string {
  return `${expression}=${value};${value}`;
}

/** A number with the same hundreds and other digits below. */
function wrongGuess(value: number, offset: number): string {
  const rest = value % 100;
  return String(value - rest + ((rest + offset) % 100));
}

/** Draws different problems that are not taken yet; each takes itself and those that `alsoTakes` names. */
function draw(
  count: number,
  random: SeededRandom,
  taken: Set<string>,
  alsoTakes: (problem: Problem) => Problem[],
): Problem[] {
  const problems: Problem[] = [];
  while (problems.length < count) {
    const problem: Problem = {
      a: 10 + random.nextInt(FACTORS),
      b: 10 + random.nextInt(FACTORS),
      operator: OPERATORS[random.nextInt(OPERATORS.length)] ?? '+',
      c: 2 + random.nextInt(LAST_TERMS),
    };
    if (taken.has(expressionOf(problem))) continue;
    for (const one of [problem, ...alsoTakes(problem)]) taken.add(expressionOf(one));
    problems.push(problem);
  }
  return problems;
}

function checkOptions(options: {
  trainCount: number;
  heldOutCount: number;
  toolShare: number;
  wrongCallShare: number;
}): void {
  const { trainCount, heldOutCount, toolShare, wrongCallShare } = options;
  const refuse = (expected: string, received: number): never => {
    throw new ValueRangeError(`calculatorTask: expected ${expected}, received ${received}.`);
  };
  for (const [name, value] of Object.entries({ trainCount, heldOutCount })) {
    if (!Number.isInteger(value) || value < 1) refuse(`${name} to be a positive integer`, value);
  }
  for (const [name, value] of Object.entries({ toolShare, wrongCallShare })) {
    if (!(value >= 0 && value <= 1)) refuse(`${name} from 0 to 1`, value);
  }
  // A held-out problem takes two away. Beyond half, drawing again and again would take long.
  const wanted = trainCount + 2 * heldOutCount;
  const available = (FACTORS ** 2 * OPERATORS.length * LAST_TERMS) / 2;
  if (wanted > available) {
    refuse(`trainCount + 2 · heldOutCount of at most ${available}`, wanted);
  }
}
