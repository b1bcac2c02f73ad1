/**
 * The benchmarks' command line: `npm run bench -- generate --against torch`. Parses, starts processes in turn, prints.
 */
import { parseArgs } from 'node:util';
import { PosttrainError, UsageError } from '../src/errors/index.js';
import { SHAPES, type Cell, type ProfileRow } from './jobs.js';
import { circumstances } from './machine.js';
import {
  INSTALL_PYTHON,
  measureOurs,
  measurePython,
  measureUndisturbed,
  pythonPath,
} from './processes.js';
import { markdownTable, provenance, resultsPath, writeResults, type Row } from './results.js';
import { ratioOf, summarise, unitOf, type Measurement } from './statistics.js';

const HELP = `npm run bench -- <case> [options]

Cases
  dispatch   nanoseconds of a small operator, its result object included
  generate   new tokens per second at batch 1, 16 and 64
  packing    tokens per second of fine-tuning steps on rows of 16 to 512 tokens, packed and not (ours only)
  tokenize   token ids per second of encoding, for five kinds of tokenizers and for one long text without spaces
  models     SmolLM2-135M, Qwen2.5-0.5B and Llama-3.2-1B with random weights: generates, trains; writes docs/models.md
  quantized  one linear layer with a frozen weight in 8 or 4 bits, against the plain product (docs/lora.md)
  memory     peak memory of training against the estimate; writes the table of docs/memory.md
  check      whether the Python side of generate computes the same model (needs Python)
  docs       writes the tables of bench/results into docs/performance.md

Options
  --against NAME    measures the other side from Python too: ours, Python, ours, Python, each in a fresh process;
                    torch, or for tokenize tokenizers
  --python PATH     an interpreter that has torch (tokenize: and tokenizers); by default POSTTRAIN_BENCH_PYTHON or
                    build/bench-python/bin/python
  --pairs N         processes per side and cell (default 3 with --against, else 1)
  --rounds N        timed repetitions in each process (default 7; generate 3, and as many as fit in 3 seconds)
  --shape NAMES     generate: ${Object.keys(SHAPES).join(',')}; models, memory, quantized: part of a case's name
  --batch LIST      generate: rows (default 1,16,64)
  --prompt N        generate: tokens of each prompt (default 32)
  --tokens N        generate: new tokens of each row (default 64)
  --calls N         dispatch: calls per repetition (default 200000)
  --quiet           waits for a machine at rest before each process, and repeats one that others disturbed (Linux)
  --profile         prints where our side's time goes instead of results
  --out FILE        where the results go; by default bench/results/<case>[.torch].json for a run over all cells
  --json            the results as one line of JSON at the end of stdout

The Python side is installed by:
  ${INSTALL_PYTHON}`;

const { values, positionals } = readArguments();

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        against: { type: 'string' },
        python: { type: 'string' },
        pairs: { type: 'string' },
        rounds: { type: 'string' },
        shape: { type: 'string' },
        batch: { type: 'string' },
        prompt: { type: 'string', default: '32' },
        tokens: { type: 'string', default: '64' },
        calls: { type: 'string', default: '200000' },
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

function count(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new UsageError(`bench: expected --${name} to be a positive integer, received ${text}.`);
}

function dispatchCells(): Cell[] {
  const rounds = count('rounds', values.rounds ?? '7');
  const job = { kind: 'dispatch', rounds, calls: count('calls', values.calls) } as const;
  return ['add', 'add, recorded by autograd', 'multiply by a number'].map((quantity) => ({
    name: quantity,
    quantity,
    job,
  }));
}

function generateCells(): Cell[] {
  const names = values.shape?.split(',') ?? Object.keys(SHAPES);
  const batches = (values.batch ?? '1,16,64').split(',').map((text) => count('batch', text));
  return names.flatMap((name) => {
    const shape = SHAPES[name];
    if (shape === undefined) {
      throw new UsageError(
        `bench: expected --shape to be of ${Object.keys(SHAPES).join(', ')}, received ${name}.`,
      );
    }
    return batches.map((batch): Cell => ({
      name: `${name}, batch ${batch}`,
      quantity: 'tokens/s',
      job: {
        kind: 'generate',
        warmUpSeconds: 1,
        seconds: 3,
        rounds: count('rounds', values.rounds ?? '3'),
        shape,
        batch,
        promptTokens: count('prompt', values.prompt),
        newTokens: count('tokens', values.tokens),
      },
    }));
  });
}

function packingCells(): Cell[] {
  const names = values.shape?.split(',') ?? ['tiny'];
  const rounds = count('rounds', values.rounds ?? '5');
  return names.flatMap((name) => {
    const shape = SHAPES[name];
    if (shape === undefined) {
      throw new UsageError(
        `bench: expected --shape to be of ${Object.keys(SHAPES).join(', ')}, received ${name}.`,
      );
    }
    return [false, true].map((packing): Cell => ({
      name: `${name}, ${packing ? 'packed' : 'a line for each row'}`,
      quantity: 'tokens/s',
      job: { kind: 'packing', rounds, shape, packing, rows: 64, shortest: 16, longest: 512 },
    }));
  });
}

const TOKENIZERS = 'test/golden/tokenizers/rust';

function tokenizeCells(): Cell[] {
  const cell = (name: string, row: string, characters: number, rowCharacters: number): Cell => ({
    name: `${name}, ${row}`,
    quantity: 'tokens/s',
    job: {
      kind: 'encode',
      rounds: count('rounds', values.rounds ?? '3'),
      seconds: 2,
      tokenizer: `${TOKENIZERS}/${name}.json.gz`,
      texts: `${TOKENIZERS}/strings.json.gz`,
      characters,
      rowCharacters,
    },
  });
  return [
    ...['gpt2', 'llama3', 'mistral', 't5', 'bert'].map((name) => cell(name, 'rows', 1e6, 2000)),
    ...['llama3', 'mistral', 't5'].map((name) => cell(name, 'one text', 1e6, 1e6)),
  ];
}

interface Measured {
  ours: Measurement[];
  theirs: Measurement[];
}

/** Runs a job's processes in turn: ours, Python, ours, Python, … */
async function measureInTurn(
  cell: Cell,
  python: string | undefined,
  pairs: number,
): Promise<Measured> {
  const measured: Measured = { ours: [], theirs: [] };
  const progress = (side: string, report: Measurement): void => {
    const { median } = summarise([report], cell.quantity);
    process.stderr.write(`${cell.name}: ${side} ${median} ${unitOf(cell.quantity)}\n`);
  };
  for (let pair = 0; pair < pairs; pair++) {
    const ours = await measureUndisturbed(() => measureOurs(cell.job), values.quiet);
    progress('posttrain', ours);
    measured.ours.push(ours);
    if (python === undefined) continue;
    const theirs = await measureUndisturbed(() => measurePython(python, cell.job), values.quiet);
    progress(values.against ?? '', theirs);
    measured.theirs.push(theirs);
  }
  return measured;
}

async function runCells(name: string, cells: readonly Cell[]): Promise<void> {
  const against = values.against ?? null;
  const other = name === 'tokenize' ? 'tokenizers' : 'torch';
  if (against !== null && against !== other) {
    throw new UsageError(`bench: expected --against ${other}, received --against ${against}.`);
  }
  const python = against === null ? undefined : pythonPath(values.python);
  const pairs = count('pairs', values.pairs ?? (against === null ? '1' : '3'));
  const before = circumstances();
  const byJob = new Map<Cell['job'], Measured>();
  const rows: Row[] = [];
  for (const cell of cells) {
    const measured = byJob.get(cell.job) ?? (await measureInTurn(cell, python, pairs));
    byJob.set(cell.job, measured);
    const ours = summarise(measured.ours, cell.quantity);
    const row = { name: cell.name, quantity: cell.quantity, job: cell.job, ours };
    if (python === undefined) rows.push(row);
    else {
      const other = summarise(measured.theirs, cell.quantity);
      rows.push({ ...row, against: other, ratio: ratioOf(ours, other, cell.quantity) });
    }
  }
  const all = [...byJob.values()];
  const results = {
    case: name,
    against,
    circumstances: { ...before, cpuCapability: all[0]?.ours[0]?.cpuCapability ?? '' },
    versions: { ...all[0]?.theirs[0]?.versions, ...all[0]?.ours[0]?.versions },
    rows,
  };
  console.log(`${markdownTable(results)}\n\n${provenance(results)}`);
  const isWhole = ['shape', 'batch', 'prompt', 'tokens', 'calls', 'rounds', 'pairs'].every(
    (option) => !process.argv.some((argument) => argument.startsWith(`--${option}`)),
  );
  const path = values.out ?? (isWhole ? resultsPath(name, against) : undefined);
  if (path !== undefined) {
    writeResults(results, path);
    process.stderr.write(`Written to ${path}\n`);
  }
  if (values.json) console.log(JSON.stringify(results));
}

async function runProfile(name: string, cells: readonly Cell[]): Promise<void> {
  if (name !== 'generate') {
    throw new UsageError('bench: expected --profile with generate; other cases are one operator.');
  }
  for (const cell of new Map(cells.map((each) => [each.job, each])).values()) {
    const report = await measureOurs(cell.job, { profile: true });
    const speed = summarise([{ ...report, othersShare: null }], cell.quantity);
    console.log(
      `\n${cell.name}: ${speed.median} ${unitOf(cell.quantity)} under the profile, all rounds together`,
    );
    console.log(profileTable(report.profile ?? []));
  }
}

function profileTable(rows: readonly ProfileRow[]): string {
  const whole = rows.reduce((sum, row) => sum + row.milliseconds, 0);
  return rows
    .filter(({ milliseconds }) => milliseconds / whole >= 0.002)
    .map(({ name, calls, milliseconds }) => {
      const share = `${((100 * milliseconds) / whole).toFixed(1)} %`.padStart(7);
      const each = `${((1000 * milliseconds) / calls).toFixed(1)} µs`.padStart(11);
      const total = `${milliseconds.toFixed(1)} ms`.padStart(11);
      const times = `${calls} ×`.padStart(10);
      return name === 'JavaScript'
        ? `${share}${total}  ${name}`
        : `${share}${total}${times}${each}  ${name}`;
    })
    .join('\n');
}

async function runCheck(): Promise<void> {
  const { checkSides } = await import('./check.js');
  const results = await checkSides(pythonPath(values.python));
  for (const { name, rows, equal } of results) {
    console.log(`${name}: ${equal} of ${rows} rows equal token by token`);
  }
  if (results.some(({ rows, equal }) => equal < rows)) process.exitCode = 1;
}

async function main(): Promise<void> {
  const [name, ...surplus] = positionals;
  if (values.help) console.log(HELP);
  else if (surplus.length > 0) {
    throw new UsageError(`bench: expected one case, received ${positionals.join(' ')}.`);
  } else if (name === 'dispatch' || name === 'generate' || name === 'tokenize') {
    const makers = { dispatch: dispatchCells, generate: generateCells, tokenize: tokenizeCells };
    const cells = makers[name]();
    await (values.profile ? runProfile(name, cells) : runCells(name, cells));
  } else if (name === 'models') {
    const { benchRealShapes } = await import('./realShapes.js');
    await benchRealShapes(values.shape);
  } else if (name === 'memory') {
    const { benchMemory } = await import('./memory.js');
    await benchMemory(values.shape);
  } else if (name === 'quantized') {
    const { benchQuantized } = await import('./quantized.js');
    benchQuantized(values.shape);
  } else if (name === 'packing') await runCells(name, packingCells());
  else if (name === 'check') await runCheck();
  else if (name === 'docs') {
    const { updateDocument } = await import('./documentation.js');
    const { path, missing } = updateDocument();
    console.log(
      [`Written: ${path}`, ...missing.map((each) => `No results of: ${each}`)].join('\n'),
    );
  } else {
    throw new UsageError(`bench: expected a case, received ${name ?? 'none'}.`, { hint: HELP });
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof PosttrainError)) throw error;
  process.stderr.write(`${error.message}\n${error.hint ?? ''}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
