/** Parts of a tiny training run, made on the spot: a character tokenizer, a random decoder, prompts and demonstrations. */
import {
  rowsFromObjects,
  tokenizeForSft,
  tokenizePreferences,
  tokenizePrompts,
  tokenizeSteps,
  type PreferenceExample,
  type PromptExample,
  type SftExample,
  type StepExample,
} from '../src/data/index.js';
import { createModel, makeDecoderConfig, type Decoder } from '../src/models/index.js';
import { createCharacterTokenizer, type Tokenizer } from '../src/tokenizers/index.js';
import type { Dtype } from '../src/torch/index.js';

/** Four letters, their opposites, and a sign between. */
export const ALPHABET = 'abcdxyz:';

/** A tokenizer for `ALPHABET`. */
export function tinyTokenizer(): Tokenizer {
  return createCharacterTokenizer({ characters: ALPHABET });
}

/** A two-layer decoder for `tinyTokenizer`, far enough from uniform that mistakes show. */
export function tinyModel(
  options: { seed?: number; dtype?: Dtype; initializerRange?: number; positions?: number } = {},
): Decoder {
  const tokenizer = tinyTokenizer();
  const config = makeDecoderConfig({
    vocabSize: tokenizer.vocabSize,
    hiddenSize: 16,
    intermediateSize: 24,
    numLayers: 2,
    numHeads: 2,
    tieWordEmbeddings: true,
    maxPositionEmbeddings: options.positions ?? 32,
    initializerRange: options.initializerRange ?? 0.3,
    eosTokenId: tokenizer.eosTokenId ?? null,
    padTokenId: tokenizer.padTokenId ?? null,
  });
  return createModel(config, { seed: options.seed ?? 1, dtype: options.dtype ?? 'float32' });
}

/** Prompts of different lengths; the row's answer is the prompt's first letter. */
export function tinyPrompts(): PromptExample[] {
  const rows = ['a:', 'bc:', 'cad:', 'dd:', 'ab:', 'b:'].map((prompt) => ({
    prompt,
    answer: prompt[0],
  }));
  return tokenizePrompts(rowsFromObjects(rows, 'tiny'), tinyTokenizer(), { maxPromptLength: 8 })
    .prompts;
}

/** Demonstrations of different lengths. */
export function tinyExamples(): SftExample[] {
  const rows = [
    { prompt: 'a:', completion: 'x' },
    { prompt: 'bc:', completion: 'yzx' },
    { prompt: 'cad:', completion: 'zy' },
    { prompt: 'd:', completion: 'xxyyz' },
    { prompt: 'ab:', completion: 'z' },
  ];
  return tokenizeForSft(rowsFromObjects(rows, 'tiny'), tinyTokenizer(), { maxLength: 16 }).examples;
}

/** Pairs of different lengths; the last three rank three completions of one prompt. */
export function tinyPairs(): PreferenceExample[] {
  const rows = [
    { prompt: 'a:', chosen: 'x', rejected: 'yz', margin: 0.5 },
    { prompt: 'bc:', chosen: 'yzx', rejected: 'zy' },
    { prompt: 'cad:', chosen: 'zy', rejected: 'xxyy', margin: -0.25 },
    { prompt: 'd:', chosen: 'xy', rejected: 'z' },
    { prompt: 'ab:', chosen: 'z', rejected: 'yyx', comparison: 'k', margin: 1 },
    { prompt: 'ab:', chosen: 'z', rejected: 'xz', comparison: 'k' },
    { prompt: 'ab:', chosen: 'yyx', rejected: 'xz', comparison: 'k' },
  ];
  return tokenizePreferences(rowsFromObjects(rows, 'tiny'), tinyTokenizer(), { maxLength: 16 })
    .pairs;
}

/** Rows of judged steps, of different lengths, as data: after ':' every step of the answer. */
export const TINY_STEP_ROWS = [
  { prompt: 'a:', completions: ['x'], labels: [true] },
  { prompt: 'bc:', completions: ['y', 'zx', 'x'], labels: [true, false, false] },
  { prompt: 'cad:', completions: ['zz', 'y'], labels: [true, true] },
  { prompt: 'd:', completions: ['xx', 'yy', 'z'], labels: [false, true, true] },
  { prompt: 'ab:', completions: ['z'], labels: [false] },
];

/** `TINY_STEP_ROWS` as examples; a colon stands after every step. */
export function tinySteps(): StepExample[] {
  const options = { maxLength: 16, stepSeparator: ':' };
  return tokenizeSteps(rowsFromObjects(TINY_STEP_ROWS, 'tiny'), tinyTokenizer(), options).examples;
}

/** All parameters of a model as plain numbers, by name. */
export function parameterValues(model: Pick<Decoder, 'namedParameters'>): Map<string, number[]> {
  return new Map(
    Array.from(model.namedParameters(), ([name, value]) => [
      name,
      Array.from(value.toTypedArray()),
    ]),
  );
}

/** Largest difference between two sets of parameters. */
export function parameterDistance(a: Map<string, number[]>, b: Map<string, number[]>): number {
  let worst = 0;
  for (const [name, values] of a) {
    values.forEach((value, index) => {
      worst = Math.max(worst, Math.abs(value - (b.get(name)?.[index] ?? NaN)));
    });
  }
  return worst;
}
