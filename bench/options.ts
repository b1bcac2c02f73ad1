/** The benchmarks' options: read once, asked everywhere. */
import { parseArgs } from 'node:util';
import { UsageError } from '../src/errors/index.js';
import { SHAPES, type ModelShape } from './jobs.js';
import { INSTALL_LLAMA, INSTALL_PYTHON } from './processes.js';

export const HELP = `npm run bench -- <case> [options]

Cases
  all              every case below down to startup, cell after cell; goes on where an earlier call of this commit stopped
  dispatch         nanoseconds of a small operator, its result object included           (--against torch)
  tokenize         token ids per second of encoding                                      (--against tokenizers)
  generate         new tokens per second at batch 1, 16 and 64                           (--against torch, transformers)
  generate-spread  32 prompts with 8 completions each, whose lengths spread 10 to 1      (--against transformers)
  sft dpo reward grpo   whole steps of training                                          (--against trl)
  grpo-lora        GRPO steps of the Qwen2.5-0.5B shape with adapters, bfloat16; not in all (--against trl)
  ppo              whole steps of PPO                                                    (--against torch)
  llama            decoding one row of the 135 M shape                                   (--against llama.cpp)
  growth           time and memory by completion length, group size, vocabulary and batch (ours only)
  startup          the first help text, the first import, the first token                (ours only)
  packing          fine-tuning steps on rows of 16 to 512 tokens, packed and not         (ours only)
  models           SmolLM2-135M, Qwen2.5-0.5B and Llama-3.2-1B with random weights; writes docs/models.md
  parts            what single parts of the engine gain, each switched on and off
  quantized        one linear layer with a frozen weight in 8 or 4 bits, against the plain product (docs/lora.md)
  memory           peak memory of training against the estimate; writes the table of docs/memory.md
  data             from a file to token ids: JSONL, CSV, Parquet, in memory and with streaming (ours only)
  install          sizes, and seconds from git clone to the first training step; committed files (ours only)
  check            whether the Python side of generate computes the same model (needs Python)
  docs             writes the tables and plots of bench/results into docs/performance.md

Options
  --against NAME    measures the other side too: ours, other, ours, other, each in a fresh process. all: any name, each
                    case against all that it has
  --python PATH     an interpreter that has the Python side; by default POSTTRAIN_BENCH_PYTHON or
                    build/bench-python/bin/python
  --pairs N         processes per side and cell (default 3 with --against, else 1)
  --rounds N        timed repetitions in each process (by default what the case takes)
  --only TEXT       cells whose case and name, as "grpo tiny, float32", hold this text; their rows replace those of the
                    results file, which keeps the others
  --resume          leaves out cells that the results file has from this commit (all does)
  --shape NAMES     ${Object.keys(SHAPES).join(',')}; models, memory, quantized: part of a case's name
  --dtype LIST      float32,bfloat16 and, for training, mixed
  --batch LIST      generate: rows (default 1,16,64)
  --prompt N        generate: tokens of each prompt (default 32)
  --tokens N        generate: new tokens of each row (default 64)
  --calls N         dispatch: calls per repetition (default 200000)
  --rows N          data: rows of each file (default 20000)
  --fresh           install: downloads libtorch again, in place of the one in the cache
  --quiet           waits for a machine at rest before each process, and repeats one that others disturbed (Linux)
  --profile         prints where our side's time goes instead of results
  --out FILE        where the results go; by default bench/results/<case>[.<against>].json, unless an option above
                    changes what is measured
  --json            the results as one line of JSON at the end of stdout

The other sides are installed by:
  ${INSTALL_PYTHON}
  ${INSTALL_LLAMA}`;

/** What the command line says. */
export type Options = ReturnType<typeof readOptions>['values'];

/** Reads the command line; one that cannot be read ends the process with the help text. */
export function readOptions() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        against: { type: 'string' },
        python: { type: 'string' },
        pairs: { type: 'string' },
        rounds: { type: 'string' },
        only: { type: 'string' },
        resume: { type: 'boolean', default: false },
        shape: { type: 'string' },
        dtype: { type: 'string' },
        batch: { type: 'string' },
        prompt: { type: 'string' },
        tokens: { type: 'string' },
        calls: { type: 'string' },
        rows: { type: 'string' },
        fresh: { type: 'boolean', default: false },
        out: { type: 'string' },
        profile: { type: 'boolean', default: false },
        quiet: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n\n${HELP}\n`);
    process.exit(2);
  }
}

/** Options that change what is measured: results under them are no case's results. */
export const CHANGES_CELLS = [
  'shape',
  'dtype',
  'batch',
  'prompt',
  'tokens',
  'calls',
  'rounds',
] as const;

/** @throws UsageError unless the text is a positive integer */
export function count(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new UsageError(`bench: expected --${name} to be a positive integer, received ${text}.`);
}

/** Some of `allowed`, as a list with commas names them; `byDefault` where there is no list. */
export function listOf<Name extends string>(
  option: string,
  text: string | undefined,
  allowed: readonly Name[],
  byDefault: readonly Name[],
): readonly Name[] {
  if (text === undefined) return byDefault;
  return text.split(',').map((name) => {
    const found = allowed.find((each) => each === name);
    if (found !== undefined) return found;
    throw new UsageError(
      `bench: expected --${option} to be of ${allowed.join(', ')}, received ${name}.`,
    );
  });
}

/** The shapes that `--shape` names, by name. */
export function shapesOf(
  options: Options,
  byDefault: readonly string[] = ['tiny', 'smollm2-135m'],
): { name: string; shape: ModelShape }[] {
  return listOf('shape', options.shape, Object.keys(SHAPES), byDefault).flatMap((name) => {
    const shape = SHAPES[name];
    return shape === undefined ? [] : [{ name, shape }];
  });
}
