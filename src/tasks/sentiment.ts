/**
 * Short reviews in a language of ten letters, with a true reward that is known. There are so few completions that every
 * one of them can be scored: the ground of experiments that measure exactly. Text only; knows no tokens and no models.
 *
 * `qgF` asks for a review of a film (`F`; `H` a hotel, `M` a meal) that others have called quiet (`q`) and good (`g`).
 * `vhnb` answers that it is very hot and not bad: `v` very, `n` not; `g` good, `b` bad, `q` quiet, `h` hot, `l` long. What
 * a word is worth depends on what is reviewed: a hotel may be quiet, a film should not. What ends a review is the
 * tokenizer's EOS token.
 */
import { SeededRandom } from '../data/random.js';
import { ValueRangeError } from '../errors/index.js';
import type { RewardFunction } from '../rewards/index.js';
import { assertDisjoint } from './addition.js';

/** Settings of `sentimentTask`. */
export interface SentimentTaskOptions {
  readonly seed: number;
  /** Different prompts to train on. 60 unless set. */
  readonly trainCount?: number | undefined;
  /** Different prompts that never occur in training. 12 unless set. */
  readonly heldOutCount?: number | undefined;
  /** Reviews that were written for prompts to train on. 4,000 unless set. */
  readonly demonstrationCount?: number | undefined;
}

/** A prompt with what a reviewer wrote. (A type and not an interface, so that it is a data row.) */
export type SentimentDemonstration = { readonly prompt: string; readonly completion: string };

/** A prompt without a right answer: a review has a reward. (A type and not an interface, so that it is a data row.) */
export type SentimentPrompt = { readonly prompt: string };

/** Everything to train and test on. */
export interface SentimentTask {
  /** Every character of the texts, each once. */
  readonly characters: string;
  /** Reviews by people who like what they review and by people who do not, in no order. */
  readonly demonstrations: readonly SentimentDemonstration[];
  /** The prompts to train on. */
  readonly trainPrompts: readonly SentimentPrompt[];
  /** Prompts for evaluation. */
  readonly heldOut: readonly SentimentPrompt[];
}

const SUBJECTS = ['F', 'H', 'M'] as const;
const WORDS = ['g', 'b', 'q', 'h', 'l'] as const;
const MODIFIERS = ['v', 'n'] as const;

type Subject = (typeof SUBJECTS)[number];
type Word = (typeof WORDS)[number];

/** What a word says about a subject. No two subjects order the words alike. */
const VALUES: Readonly<Record<Subject, Readonly<Record<Word, number>>>> = {
  F: { g: 0.8, b: -0.8, q: -0.5, h: 0.5, l: -0.3 },
  H: { g: 0.7, b: -0.9, q: 0.9, h: -0.7, l: 0.4 },
  M: { g: 0.9, b: -0.6, q: 0.1, h: 0.6, l: -0.9 },
};

const VERY = 1.5;
const NOT = -0.75;
/** "not very good" says less than "not good". */
const NOT_VERY = -0.4;

/** Price of a word that others, or the review itself, have said before. Such a word is worth nothing. */
const REPETITION_PRICE = 0.5;
/** Price of a modifier that stands twice before a word, and of one that no word follows. */
const LOOSE_MODIFIER_PRICE = 0.3;
/** Price of a character that has no place in a review. */
const FOREIGN_PRICE = 0.5;

/** Two, so that a review has at most four characters. */
const MAX_PHRASES = 2;

/** Weight of a phrase that is not what the reviewer thinks; 1 is that of one that is. */
const CONTRARY_WEIGHT = 0.25;

/** The prompts there are: none, one or two different words in either order, and a subject. */
const ALL_PROMPTS: readonly string[] = SUBJECTS.flatMap((subject) => [
  subject,
  ...WORDS.map((word) => `${word}${subject}`),
  ...WORDS.flatMap((first) =>
    WORDS.flatMap((second) => (second === first ? [] : [`${first}${second}${subject}`])),
  ),
]);

/**
 * Makes the task. The same options give the same texts in the same order.
 *
 * A reviewer likes the subject or does not (0.5 each) and writes one phrase or two (0.5 each): nothing (0.5), `v` or `n`
 * (0.25 each), and a word. Phrases that say what the reviewer thinks have four times the weight of others. What others
 * said is not minded, so that words are repeated. A review has at most four characters.
 *
 * Source: none; our own task, in the place of the controlled sentiment of Rafailov et al. 2023, arXiv:2305.18290, section
 * 6, whose reward is a classifier and whose frontier has to be sampled. Shares are choices of ours.
 *
 * @throws ValueRangeError if a count is no positive integer, or more prompts are asked for than there are
 */
export function sentimentTask(options: SentimentTaskOptions): SentimentTask {
  const { seed, trainCount = 60, heldOutCount = 12, demonstrationCount = 4000 } = options;
  checkCounts({ trainCount, heldOutCount, demonstrationCount });
  const random = new SeededRandom(seed);
  const order = Array.from(random.permutation(ALL_PROMPTS.length), (index) => ({
    prompt: ALL_PROMPTS[index] ?? '',
  }));
  // Held-out prompts first: more prompts to train on leave them as they are.
  const heldOut = order.slice(0, heldOutCount);
  const trainPrompts = order.slice(heldOutCount, heldOutCount + trainCount);
  assertDisjoint(trainPrompts, heldOut);
  const demonstrations = Array.from({ length: demonstrationCount }, () => {
    const prompt = trainPrompts[random.nextInt(trainCount)]?.prompt ?? '';
    return { prompt, completion: review(subjectOf(prompt), random) };
  });
  return {
    characters: [...SUBJECTS, ...WORDS, ...MODIFIERS].join(''),
    ...{ demonstrations, trainPrompts, heldOut },
  };
}

/**
 * The true reward, above −2 and below 2.
 *
 *     2·tanh(s/2),  s = Σ over words: factor · value(subject, word) − prices
 *
 * `v` before a word makes its factor 1.5, `n` −0.75, both −0.4. A word that stands in the prompt or earlier in the review
 * is worth nothing and costs 0.5; a modifier twice before one word, or at the end without a word, 0.3; any other character
 * 0.5. It reads the prompt's last character and the words before it, and no other column.
 *
 * Source: none; our own.
 *
 * @throws ValueRangeError if the prompt is none of the task's
 */
export const sentimentReward: RewardFunction = ({ prompt, completion }) =>
  sentimentScore(prompt, completion);

/** The true reward of a completion, for whoever has no row. See `sentimentReward`. */
export function sentimentScore(prompt: string, completion: string): number {
  const values = VALUES[subjectOf(prompt)];
  const said = new Set(prompt);
  let modifiers = new Set<string>();
  let sum = 0;
  for (const character of completion) {
    if (isModifier(character)) {
      if (modifiers.has(character)) sum -= LOOSE_MODIFIER_PRICE;
      modifiers.add(character);
    } else if (isWord(character)) {
      sum += said.has(character) ? -REPETITION_PRICE : factorOf(modifiers) * values[character];
      said.add(character);
      modifiers = new Set();
    } else {
      sum -= FOREIGN_PRICE;
    }
  }
  return 2 * Math.tanh((sum - LOOSE_MODIFIER_PRICE * modifiers.size) / 2);
}

function factorOf(modifiers: ReadonlySet<string>): number {
  if (modifiers.has('n')) return modifiers.has('v') ? NOT_VERY : NOT;
  return modifiers.has('v') ? VERY : 1;
}

function review(subject: Subject, random: SeededRandom): string {
  const opinion = random.nextFloat() < 0.5 ? 1 : -1;
  const phrases = 1 + random.nextInt(MAX_PHRASES);
  return Array.from({ length: phrases }, () => phrase(subject, opinion, random)).join('');
}

function phrase(subject: Subject, opinion: number, random: SeededRandom): string {
  const kind = random.nextFloat();
  const modifier = kind < 0.5 ? '' : kind < 0.75 ? 'v' : 'n';
  const factor = factorOf(new Set(modifier));
  const weights = WORDS.map((word) =>
    factor * VALUES[subject][word] * opinion > 0 ? 1 : CONTRARY_WEIGHT,
  );
  let rest = random.nextFloat() * weights.reduce((sum, weight) => sum + weight, 0);
  const index = weights.findIndex((weight) => (rest -= weight) < 0);
  return modifier + WORDS.at(index);
}

function subjectOf(prompt: string): Subject {
  const last = prompt.at(-1);
  const subject = SUBJECTS.find((known) => known === last);
  if (subject === undefined || !ALL_PROMPTS.includes(prompt)) {
    throw new ValueRangeError(
      `sentimentReward: expected a prompt of the task, such as "qgF", received ${JSON.stringify(prompt)}.`,
    );
  }
  return subject;
}

function isWord(character: string): character is Word {
  return WORDS.some((word) => word === character);
}

function isModifier(character: string): boolean {
  return MODIFIERS.some((modifier) => modifier === character);
}

function checkCounts(
  counts: Readonly<{ trainCount: number; heldOutCount: number; demonstrationCount: number }>,
): void {
  for (const [name, value] of Object.entries(counts)) {
    if (Number.isInteger(value) && value >= 1) continue;
    throw new ValueRangeError(
      `sentimentTask: expected ${name} to be a positive integer, received ${value}.`,
    );
  }
  const wanted = counts.trainCount + counts.heldOutCount;
  if (wanted > ALL_PROMPTS.length) {
    throw new ValueRangeError(
      `sentimentTask: expected trainCount + heldOutCount of at most ${ALL_PROMPTS.length}, received ${wanted}.`,
    );
  }
}
