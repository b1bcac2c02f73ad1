/**
 * What both sides of a training cell read: a folder with a model of random weights and its tokenizer in the layout of
 * Hugging Face, and rows of random text. Kept below build/bench, so that each is made once.
 */
import {
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
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

/** Where the file of a shape for llama.cpp is, whether it is there or not. */
export function ggufOf(name: string, dtype: string): string {
  return join(ROOT, 'build', 'bench', 'models', `${name}-${dtype}.gguf`);
}

/** The reward model that stands beside a model folder: the same trunk with a scalar head. */
export function rewardFolderOf(model: string): string {
  return model.replace(/-endless$/, '') + '-reward';
}

/** A character for every token id but the special ones, so that whatever is drawn is text of as many characters. */
export function alphabetOf(vocabSize: number): string[] {
  const others = vocabSize - SPECIAL_TOKENS - LETTERS.length;
  return [
    ...Array.from(LETTERS),
    ...Array.from({ length: others }, (_, index) => String.fromCodePoint(0x20000 + index)),
  ];
}

/** The same model for methods that sample: its tokenizer names no end token. */
export function endlessFolderOf(model: string): string {
  return `${model}-endless`;
}

/**
 * Writes the folder and those beside it; for a process of its own, whose memory nobody measures.
 *
 * No configuration names an end token, and the tokenizers of the endless folders do not either, so that every completion
 * is drawn to its full length. The tokenizer of the first folder has one, which ends the texts of training data.
 */
export async function makeModelFolder(folder: string, shape: ModelShape): Promise<void> {
  const { createModel, createScalarModel, makeDecoderConfig } =
    await import('../src/models/index.js');
  const { createCharacterTokenizer } = await import('../src/tokenizers/index.js');
  const tokenizer = createCharacterTokenizer({ characters: alphabetOf(shape.vocabSize).join('') });
  const { padTokenId } = tokenizer;
  const config = makeDecoderConfig({ ...shape, maxPositionEmbeddings: 4096 });
  const model = () => createModel(config, { seed: 0 });
  await writeWhole(endlessFolderOf(folder), async (path) => {
    await model().save(path);
    await tokenizer.save(path);
    forgetEndToken(path);
  });
  await writeWhole(rewardFolderOf(folder), async (path) => {
    await createScalarModel(model(), { padTokenId }).save(path);
    await tokenizer.save(path);
    forgetEndToken(path);
  });
  await writeWhole(folder, async (path) => {
    for (const name of ['config.json', 'generation_config.json', 'model.safetensors']) {
      const from = join(endlessFolderOf(folder), name);
      if (existsSync(from)) linkSync(from, join(path, name));
    }
    await tokenizer.save(path);
  });
}

/** A folder that is there is whole. */
async function writeWhole(folder: string, write: (path: string) => Promise<void>): Promise<void> {
  const unfinished = `${folder}.unfinished`;
  for (const path of [folder, unfinished]) rmSync(path, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  await write(unfinished);
  renameSync(unfinished, folder);
}

function forgetEndToken(folder: string): void {
  for (const name of ['tokenizer_config.json', 'special_tokens_map.json']) {
    const path = join(folder, name);
    const { eos_token: _, ...rest } = JSON.parse(readFileSync(path, 'utf8')) as {
      eos_token?: unknown;
    };
    writeFileSync(path, `${JSON.stringify(rest, undefined, 2)}\n`);
  }
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
