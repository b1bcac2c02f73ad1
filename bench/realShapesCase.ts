/** One process of the models bench: makes a model folder, generates from it, or trains two steps on it. */
import { mkdirSync } from 'node:fs';
import { ConfigError } from '../src/errors/index.js';
import { sample } from '../src/generation/index.js';
import { createModel, loadModel, parseDecoderConfig } from '../src/models/index.js';
import { createGrpoRun, createSftRun } from '../src/runs/index.js';
import { createCharacterTokenizer } from '../src/tokenizers/index.js';
import { PUBLISHED, type ShapeReport, type ShapeTask } from './realShapes.js';

const LETTERS = 'abcdefghijklmnopqrstuvwxyz';
const NEW_TOKENS = 32;

const { action, shape, model, out, settings } = JSON.parse(process.argv[2] ?? '') as ShapeTask;

async function make(): Promise<void> {
  const { vocab_size: vocabSize } = PUBLISHED[shape];
  // A character for every id, so that whatever is drawn is text.
  const others = Array.from({ length: vocabSize - 32 }, (_, i) =>
    String.fromCodePoint(0x20000 + i),
  );
  const tokenizer = createCharacterTokenizer({ characters: LETTERS + others.join('') });
  const config = parseDecoderConfig({
    ...PUBLISHED[shape],
    eos_token_id: tokenizer.eosTokenId ?? null,
    pad_token_id: tokenizer.padTokenId ?? null,
  });
  mkdirSync(model);
  await createModel(config, { seed: 0, dtype: 'bfloat16' }).save(model);
  await tokenizer.save(model);
}

/** Seconds of a token: prefill and packing of the weights are in it, reading them is not. */
async function generate(): Promise<number> {
  const loaded = await loadModel(model, { dtype: settings.dtype });
  const run = (maxNewTokens: number) =>
    sample({
      ...{ model: loaded.freeze(), promptIds: [Array.from({ length: 32 }, (_, i) => 4 + i)] },
      ...{ maxNewTokens, temperature: 1, eosTokenIds: [], seed: 1 },
    });
  await run(2);
  const started = performance.now();
  await run(NEW_TOKENS);
  return (performance.now() - started) / 1000 / NEW_TOKENS;
}

function text(tokens: number, first: number): string {
  return Array.from({ length: tokens }, (_, at) => LETTERS[(first + at) % 26]).join('');
}

async function train(): Promise<ShapeReport> {
  const shared = { ...settings, checkpointEvery: null, warmupSteps: 0 };
  try {
    const run =
      action === 'sft'
        ? await createSftRun({
            ...{ model, out, progress: null },
            data: Array.from({ length: 8 }, (_, i) => ({
              ...{ prompt: text(64, i), completion: text(63, i + 7) },
            })),
            config: { ...shared, maxSteps: 2, batchSize: 4, maxLength: 128, microBatchTokens: 256 },
          })
        : await createGrpoRun({
            ...{ model, out, progress: null },
            data: Array.from({ length: 2 }, (_, i) => ({ prompt: text(32, i) })),
            rewards: [
              ({ completion }: { completion: string }) => (completion.codePointAt(0) ?? 0) % 2,
            ],
            config: {
              ...{ ...shared, steps: 2, promptsPerStep: 2, groupSize: 4, klCoef: 0.04 },
              ...{ sampling: { maxNewTokens: NEW_TOKENS }, microBatchTokens: 256 },
            },
          });
    let seconds = NaN;
    await run.train({
      progress: null,
      onStep: (_, { stepSeconds }) => {
        seconds = stepSeconds ?? NaN;
      },
    });
    return { seconds, peakBytes: peak() };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { refused: `${error.message} ${error.hint ?? ''}`.trim(), peakBytes: peak() };
  }
}

function peak(): number {
  return process.resourceUsage().maxRSS * 1024;
}

const report: ShapeReport =
  action === 'make'
    ? (await make(), { peakBytes: peak() })
    : action === 'generate'
      ? { seconds: await generate(), peakBytes: peak() }
      : await train();
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
