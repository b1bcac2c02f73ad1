/**
 * What both sides of a training cell read: a folder with a model of random weights and its tokenizer in the layout of
 * Hugging Face, and rows of random text. Kept below build/bench, so that each is made once.
 */
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SeededRandom } from '../src/data/index.js';
import type { ModelShape, TrainJob } from './jobs.js';
import { ROOT } from './machine.js';

/** `<pad>` and `<eos>` come before the characters. */
const SPECIAL_TOKENS = 2;
const LETTERS = 'abcdefghijklmnopqrstuvwxyz';

/** Where the folder of a shape is, whether it is there or not. */
export function modelFolderOf(name: string): string {
  return join(ROOT, 'build', 'bench', 'models', name);
}

/** A character for every token id but the special ones, so that whatever is drawn is text of as many characters. */
export function alphabetOf(vocabSize: number): string[] {
  const others = vocabSize - SPECIAL_TOKENS - LETTERS.length;
  return [
    ...Array.from(LETTERS),
    ...Array.from({ length: others }, (_, index) => String.fromCodePoint(0x20000 + index)),
  ];
}

/**
 * Writes the folder; for a process of its own, whose memory nobody measures.
 *
 * The configuration names no end token: samplers that read it draw every completion to its full length. The tokenizer has
 * one, which ends the texts of training data.
 */
export async function makeModelFolder(folder: string, shape: ModelShape): Promise<void> {
  const { createModel, makeDecoderConfig } = await import('../src/models/index.js');
  const { createCharacterTokenizer } = await import('../src/tokenizers/index.js');
  const tokenizer = createCharacterTokenizer({ characters: alphabetOf(shape.vocabSize).join('') });
  const config = makeDecoderConfig({ ...shape, maxPositionEmbeddings: 4096 });
  const unfinished = `${folder}.unfinished`;
  mkdirSync(unfinished, { recursive: true });
  await createModel(config, { seed: 0 }).save(unfinished);
  await tokenizer.save(unfinished);
  renameSync(unfinished, folder);
}

/** What decides a data file. */
type DataOf = Pick<TrainJob, 'method' | 'rows' | 'tokens' | 'promptTokens'>;

/**
 * Writes the rows of a training cell where they are not yet there: `batches` times as many as a step takes, every row as
 * long as the job says, the end token that both sides append counted.
 *
 * @returns the file, JSONL
 */
export function makeDataFile(job: DataOf, shape: ModelShape, batches: number): string {
  const { method, rows, tokens, promptTokens } = job;
  const kind =
    method === 'sft' ? 'text' : method === 'dpo' || method === 'reward' ? 'pairs' : 'prompts';
  const sizes = [shape.vocabSize, rows * batches, tokens, promptTokens].join('-');
  const path = join(ROOT, 'build', 'bench', 'data', `${kind}-${sizes}.jsonl`);
  if (existsSync(path)) return path;
  const alphabet = alphabetOf(shape.vocabSize);
  const random = new SeededRandom(1);
  const text = (length: number): string =>
    Array.from({ length }, () => alphabet[random.nextInt(alphabet.length)]).join('');
  const completion = (): string => text(tokens - promptTokens - 1);
  const row = {
    text: () => ({ text: text(tokens - 1) }),
    pairs: () => ({ prompt: text(promptTokens), chosen: completion(), rejected: completion() }),
    prompts: () => ({ prompt: text(promptTokens) }),
  }[kind];
  mkdirSync(dirname(path), { recursive: true });
  const lines = Array.from({ length: rows * batches }, () => `${JSON.stringify(row())}\n`);
  writeFileSync(path, lines.join(''));
  return path;
}
