/**
 * Translation from a small invented language into English with several references: a task for rewards that compare with
 * texts, such as CIDEr-D. Text only; knows no tokens and no models.
 *
 * `mav rin tol gub sek=` (often king wise cart push) may be answered `wise kings pushed carts often`, `usually smart kings
 * pushed carts` or `carts were often shoved by wise kings`. A translation has to put the words into another order, and
 * it chooses between synonyms and between active and passive. What ends an answer is the tokenizer's EOS token.
 */
import { SeededRandom } from '../data/random.js';
import { ValueRangeError } from '../errors/index.js';
import { assertDisjoint } from './addition.js';

/** Settings of `translationTask`. */
export interface TranslationTaskOptions {
  readonly seed: number;
  /** Different sources to train on. 4,000 unless set. */
  readonly trainCount?: number | undefined;
  /** Different sources that never occur in training. 300 unless set. */
  readonly heldOutCount?: number | undefined;
  /** Share of demonstrations with a word that is missing or wrong. 0.4 unless set. */
  readonly noiseShare?: number | undefined;
}

/** A source with one translation, perhaps a damaged one. (A type and not an interface, so that it is a data row.) */
export type TranslationDemonstration = { readonly prompt: string; readonly completion: string };

/** A source with its three to five different translations. (A type and not an interface, so that it is a data row.) */
export type TranslationProblem = {
  readonly prompt: string;
  readonly references: readonly string[];
};

/** Everything that a translation experiment trains and tests on. */
export interface TranslationTask {
  /** Every character of the texts, each once. */
  readonly characters: string;
  /** One demonstration per training source, in the same order. */
  readonly demonstrations: readonly TranslationDemonstration[];
  /** The training sources with their references, for a reward. */
  readonly trainPrompts: readonly TranslationProblem[];
  /** Sources for evaluation. */
  readonly heldOut: readonly TranslationProblem[];
}

/** A word of the source language and what it may become: what is said first, and what else. */
type Entry = readonly [source: string, usual: string, other: string];

const SUBJECTS: readonly Entry[] = [
  ['dov', 'dogs', 'dogs'],
  ['kel', 'cats', 'cats'],
  ['mur', 'men', 'men'],
  ['wen', 'women', 'women'],
  ['gil', 'girls', 'girls'],
  ['bap', 'boys', 'boys'],
  ['rin', 'kings', 'kings'],
  ['coz', 'cooks', 'cooks'],
];
const QUALITIES: readonly Entry[] = [
  ['ald', 'old', 'aged'],
  ['bor', 'big', 'large'],
  ['tik', 'small', 'tiny'],
  ['hap', 'happy', 'glad'],
  ['faz', 'quick', 'fast'],
  ['sul', 'sad', 'upset'],
  ['tol', 'wise', 'smart'],
  ['ruk', 'rich', 'noble'],
];
const OBJECTS: readonly Entry[] = [
  ['gub', 'carts', 'carts'],
  ['pix', 'boxes', 'boxes'],
  ['lum', 'lamps', 'lamps'],
  ['var', 'boats', 'boats'],
  ['nod', 'doors', 'doors'],
  ['zem', 'cakes', 'cakes'],
  ['fel', 'balls', 'balls'],
  ['hut', 'hats', 'hats'],
];
const VERBS: readonly Entry[] = [
  ['sek', 'pushed', 'shoved'],
  ['wul', 'washed', 'rinsed'],
  ['mog', 'moved', 'hauled'],
  ['jin', 'found', 'spied'],
  ['lov', 'liked', 'loved'],
  ['fim', 'fixed', 'mended'],
  ['sut', 'sold', 'traded'],
  ['kab', 'cut', 'sliced'],
];
const ADVERBS: readonly Entry[] = [
  ['ona', 'early', 'at dawn'],
  ['ulo', 'later', 'in time'],
  ['mav', 'often', 'usually'],
  ['ide', 'again', 'anew'],
  ['esu', 'slowly', 'gently'],
  ['pam', 'calmly', 'at ease'],
];

/** Sources there are: the quality may be missing. */
const SOURCE_COUNT =
  SUBJECTS.length * (QUALITIES.length + 1) * OBJECTS.length * VERBS.length * ADVERBS.length;

const ENTRIES = [SUBJECTS, QUALITIES, OBJECTS, VERBS, ADVERBS].flat();

/** Every English word that a translation may have, each once. */
const ENGLISH_WORDS = [
  ...new Set(ENTRIES.flatMap(([, usual, other]) => `${usual} ${other}`.split(' '))),
  'were',
  'by',
];

const CHARACTERS = [...new Set(`${ENTRIES.flat().join('')} were by=`)].sort().join('');

/** A translation says the usual word with this probability, each time it has the choice. */
const USUAL_SHARE = 0.7;

/** More than either of the two active word orders has (half of the rest each), and yet less than both together. */
const PASSIVE_SHARE = 0.4;

const MIN_REFERENCES = 3;
const MAX_REFERENCES = 5;
const MAX_COMPLETION_CHARACTERS = 40;

interface Source {
  readonly subject: Entry;
  readonly quality: Entry | undefined;
  readonly object: Entry;
  readonly verb: Entry;
  readonly adverb: Entry;
}

/**
 * Makes the task. The same options give the same texts in the same order; another `noiseShare` changes demonstrations
 * alone.
 *
 * Each translation draws a word order (active with the adverb last or first 0.3 each, passive with the adverb last or
 * after `were` 0.2 each) and each word (the usual one 0.7). Passives all begin with the object and actives do not begin
 * alike, so that the likeliest first word leads into the passive, the order that fewer references share: what imitates
 * demonstrations and decodes greedily has something left to gain by a metric over all references. Demonstrations are one
 * reference each, drawn at random; a share of `noiseShare` then loses a word or has one replaced by any other, each in half
 * of the cases.
 *
 * Prompts have at most 20 characters and completions at most 40; with 38 source words and 63 English ones.
 *
 * Source: none; our own task. Shares are choices of ours.
 *
 * @throws ValueRangeError if a count or share is out of range, or more sources are asked for than there are
 */
export function translationTask(options: TranslationTaskOptions): TranslationTask {
  const { seed, trainCount = 4000, heldOutCount = 300, noiseShare = 0.4 } = options;
  checkOptions({ trainCount, heldOutCount, noiseShare });

  const random = new SeededRandom(seed);
  const order = random.permutation(SOURCE_COUNT).subarray(0, trainCount + heldOutCount);
  const problems = Array.from(order, (index) => {
    const source = sourceOf(index);
    return { prompt: promptOf(source), references: drawReferences(source, random) };
  });
  const heldOut = problems.slice(0, heldOutCount);
  const trainPrompts = problems.slice(heldOutCount);
  assertDisjoint(trainPrompts, heldOut);

  const demonstrations = trainPrompts.map(({ prompt, references }) => {
    const reference = pick(references, random);
    const completion = random.nextFloat() < noiseShare ? damage(reference, random) : reference;
    return { prompt, completion };
  });
  return { characters: CHARACTERS, demonstrations, trainPrompts, heldOut };
}

/** The source with this number, from 0 to below `SOURCE_COUNT`. */
function sourceOf(index: number): Source {
  let rest = index;
  const next = <Item>(items: readonly Item[]): Item => {
    const digit = rest % items.length;
    rest = Math.floor(rest / items.length);
    return itemAt(items, digit);
  };
  return {
    subject: next(SUBJECTS),
    quality: next([undefined, ...QUALITIES]),
    object: next(OBJECTS),
    verb: next(VERBS),
    adverb: next(ADVERBS),
  };
}

/** `mav rin tol gub sek=`: adverb, subject, its quality, object, verb. */
function promptOf({ subject, quality, object, verb, adverb }: Source): string {
  const words = [adverb, subject, quality, object, verb].filter((entry) => entry !== undefined);
  return `${words.map(([source]) => source).join(' ')}=`;
}

/** Draws translations until there are enough different ones; the plainest source has 16 (4 orders, 2 verbs, 2 adverbs). */
function drawReferences(source: Source, random: SeededRandom): string[] {
  const count = MIN_REFERENCES + random.nextInt(MAX_REFERENCES - MIN_REFERENCES + 1);
  const drawn = new Set<string>();
  while (drawn.size < count) drawn.add(translate(source, random));
  return [...drawn];
}

function translate(
  { subject, quality, object, verb, adverb }: Source,
  random: SeededRandom,
): string {
  const say = ([, usual, other]: Entry): string =>
    random.nextFloat() < USUAL_SHARE ? usual : other;
  const agent = quality === undefined ? say(subject) : `${say(quality)} ${say(subject)}`;
  const [thing, action, manner] = [say(object), say(verb), say(adverb)];
  const isPassive = random.nextFloat() < PASSIVE_SHARE;
  const isLast = random.nextFloat() < 0.5;
  if (isPassive) {
    return isLast
      ? `${thing} were ${action} by ${agent} ${manner}`
      : `${thing} were ${manner} ${action} by ${agent}`;
  }
  const clause = `${agent} ${action} ${thing}`;
  return isLast ? `${clause} ${manner}` : `${manner} ${clause}`;
}

/** Drops one word, or replaces it by another that still fits into the longest completion. */
function damage(text: string, random: SeededRandom): string {
  const words = text.split(' ');
  const at = random.nextInt(words.length);
  const before = itemAt(words, at);
  const room = MAX_COMPLETION_CHARACTERS - text.length + before.length;
  const others = ENGLISH_WORDS.filter((word) => word !== before && word.length <= room);
  const replacement = random.nextFloat() < 0.5 ? [] : [pick(others, random)];
  return words.toSpliced(at, 1, ...replacement).join(' ');
}

function pick<Item>(items: readonly Item[], random: SeededRandom): Item {
  return itemAt(items, random.nextInt(items.length));
}

function itemAt<Item>(items: readonly Item[], index: number): Item {
  // A cast and no check: an item may be undefined, and every index comes from the length of its list.
  return items[index] as Item;
}

function checkOptions(options: {
  trainCount: number;
  heldOutCount: number;
  noiseShare: number;
}): void {
  const { trainCount, heldOutCount, noiseShare } = options;
  const refuse = (expected: string, received: number): never => {
    throw new ValueRangeError(`translationTask: expected ${expected}, received ${received}.`);
  };
  for (const [name, value] of Object.entries({ trainCount, heldOutCount })) {
    if (!Number.isInteger(value) || value < 1) refuse(`${name} to be a positive integer`, value);
  }
  if (!(noiseShare >= 0 && noiseShare <= 1)) refuse('noiseShare from 0 to 1', noiseShare);
  const wanted = trainCount + heldOutCount;
  if (wanted > SOURCE_COUNT) {
    refuse(`trainCount + heldOutCount of at most ${SOURCE_COUNT}`, wanted);
  }
}
