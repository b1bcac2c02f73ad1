/**
 * One process of the memory bench: makes a model folder (`make`), or trains two steps on it and tells its peak (`train`).
 * A line of JSON is its last output.
 */
import { createModel, makeDecoderConfig } from '../src/models/index.js';
import {
  createDpoRun,
  createGrpoRun,
  createPpoRun,
  createSftRun,
  type ProgressStream,
} from '../src/runs/index.js';
import { createCharacterTokenizer } from '../src/tokenizers/index.js';
import type { MemoryCase, MemoryReport } from './memory.js';

const LETTERS = 'abcdefghijklmnopqrstuvwxyz';

interface Task extends MemoryCase {
  readonly action: 'make' | 'train';
  readonly model: string;
  readonly out: string;
}

const task = JSON.parse(process.argv[2] ?? '') as Task;

async function make(): Promise<void> {
  // A character for every id, so that whatever is drawn is text.
  const others = Array.from({ length: task.shape.vocabSize - 32 }, (_, i) =>
    String.fromCodePoint(0x20000 + i),
  );
  const tokenizer = createCharacterTokenizer({ characters: LETTERS + others.join('') });
  const { eosTokenId = null, padTokenId = null } = tokenizer;
  const sizes = {
    ...task.shape,
    vocabSize: tokenizer.vocabSize,
    maxPositionEmbeddings: 2048,
    eosTokenId,
    padTokenId,
  };
  const model = createModel(makeDecoderConfig(sizes), { seed: 0 });
  await model.save(task.model);
  await tokenizer.save(task.model);
}

/** Text of so many tokens, the end token counted. */
function text(tokens: number, first: number): string {
  return Array.from({ length: tokens - 1 }, (_, at) => LETTERS[(first + at) % 26]).join('');
}

async function train(): Promise<MemoryReport> {
  const { method, rows, tokens, settings, model, out } = task;
  let said = '';
  const progress = { write: (words: string) => ((said += words), true) } as ProgressStream;
  const half = Math.floor(tokens / 2);
  const shared = { checkpointEvery: null, warmupSteps: 0, ...settings };
  const base = { model, out, progress };
  const prompts = Array.from({ length: rows }, (_, i) => ({ prompt: text(half + 1, i) }));
  const sampling = { maxNewTokens: tokens - half };
  const onPolicy = {
    ...base,
    data: prompts,
    rewards: [({ completion }: { completion: string }) => completion.length % 5],
  };
  const made = {
    sft: () =>
      createSftRun({
        ...base,
        data: prompts.map(({ prompt }, i) => ({ prompt, completion: text(tokens - half, i) })),
        config: { ...shared, maxSteps: 2, batchSize: rows, maxLength: tokens },
      }),
    dpo: () =>
      createDpoRun({
        ...base,
        data: prompts.map(({ prompt }, i) => ({
          prompt,
          ...{ chosen: text(tokens - half, i), rejected: text(tokens - half, i + 1) },
        })),
        config: { ...shared, maxSteps: 2, batchSize: rows, maxLength: tokens },
      }),
    grpo: () =>
      createGrpoRun({
        ...onPolicy,
        config: { ...shared, steps: 2, promptsPerStep: rows, groupSize: 8, sampling, klCoef: 0.04 },
      }),
    ppo: () =>
      createPpoRun({
        ...onPolicy,
        config: { ...shared, steps: 2, promptsPerStep: rows, groupSize: 8, sampling, klCoef: 0.04 },
      }),
  };
  const run = await made[method]();
  await run.train({ progress: null });
  const peak = process.resourceUsage().maxRSS * 1024;
  return { peakBytes: peak, said };
}

const result = task.action === 'make' ? await make() : await train();
process.stdout.write(`${JSON.stringify(result ?? {})}\n`, () => process.exit(0));
