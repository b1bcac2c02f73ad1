/** Every on-policy method from the same SFT checkpoint on the same task, each run in a process of its own. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rowsFromObjects, tokenizePrompts, type PromptExample } from '../data/index.js';
import { IoError } from '../errors/index.js';
import { loadModel } from '../models/index.js';
import { klToReference } from '../quickstart/klToReference.js';
import { CARRY_FAILURE_SHARE, MAX_NEW_TOKENS, MODEL, SFT } from '../quickstart/settings.js';
import { writeStartingPoint, type StartingPaths } from '../quickstart/startingPoint.js';
import { createSftRun, gitCommit, versions, type ProgressStream } from '../runs/index.js';
import { additionTask } from '../tasks/index.js';
import { deriveSeed } from '../torch/index.js';
import { curvePlot } from './plot.js';

/** Greedy accuracy on held-out problems that a method is to reach. */
const TARGET = 0.9;

/** The methods, by the command that trains them; their settings are `examples/methods/<name>.yaml`. */
export const METHODS = [
  'ppo',
  'grpo',
  'dr-grpo',
  'dapo',
  'gspo',
  'cispo',
  'scaling-grpo',
  'rloo',
  'reinforce++',
] as const;

/** What `reproduceMethods` may be told. */
export interface MethodsOptions {
  /** A new folder. */
  readonly out: string;
  readonly seeds: readonly number[];
  /** Which of `METHODS`; all unless set. */
  readonly methods?: readonly string[] | undefined;
  readonly progress?: ProgressStream | null | undefined;
}

/** One run of one method. */
export interface MethodRun {
  readonly method: string;
  readonly seed: number;
  /** Held-out greedy accuracy, by step; step 0 is the SFT checkpoint. */
  readonly curve: readonly { readonly step: number; readonly accuracy: number }[];
  /** The first measured step at or above the target; null where there was none. */
  readonly stepsToTarget: number | null;
  /** Completions drawn until then, resampled ones included; null likewise. */
  readonly samplesToTarget: number | null;
  readonly accuracy: number;
  readonly steps: number;
  /** Of the whole process. */
  readonly seconds: number;
  readonly peakMegabytes: number;
  /** Policy, and reference, value and reward models where the method loads them. */
  readonly models: number;
  /** nats per completion, to the SFT checkpoint. */
  readonly kl: number;
}

/**
 * Runs the methods and writes results.json, report.md and plot.svg into `out`.
 *
 * @returns one entry per method and seed
 * @throws IoError where `out` exists, or a run fails; what was measured before is in results.json
 */
export async function reproduceMethods(options: MethodsOptions): Promise<MethodRun[]> {
  const { out, seeds, methods = METHODS, progress = process.stderr } = options;
  if (existsSync(out)) {
    throw new IoError(`reproduce: expected a new folder, but ${out} exists.`, {
      hint: 'Name another folder with --out.',
    });
  }
  await mkdir(out, { recursive: true });
  const runs: MethodRun[] = [];
  for (const seed of seeds) {
    const start = await prepareAddition(join(out, `seed-${seed}`), seed, progress);
    for (const method of methods) {
      progress?.write(`${method}, seed ${seed}\n`);
      runs.push(await runMethod(method, seed, start));
      await writeFile(
        join(out, 'results.json'),
        `${JSON.stringify({ runs, ...about() }, null, 2)}\n`,
      );
    }
  }
  await writeFile(join(out, 'report.md'), methodsReport(runs));
  await writeFile(join(out, 'plot.svg'), await curvePlot(curvesOf(runs)));
  return runs;
}

function about(): Record<string, unknown> {
  return { versions: versions(), commit: gitCommit(), target: TARGET };
}

interface Start {
  readonly paths: StartingPaths;
  readonly folder: string;
  /** Folder of the SFT checkpoint. */
  readonly model: string;
  readonly heldOut: readonly PromptExample[];
}

/** The quickstart's task and its SFT checkpoint. */
async function prepareAddition(
  folder: string,
  seed: number,
  progress: ProgressStream | null,
): Promise<Start> {
  const task = additionTask({ seed, carryFailureShare: CARRY_FAILURE_SHARE });
  const { paths } = await writeStartingPoint(folder, task, { model: MODEL, seed });
  const sft = await createSftRun({
    model: paths.model,
    data: paths.demonstrations,
    out: join(folder, 'sft'),
    config: { ...SFT, seed },
    progress,
  });
  const { model } = await sft.train({ progress });
  const rows = rowsFromObjects(task.heldOut.map((row) => ({ ...row })));
  const { prompts: heldOut } = tokenizePrompts(rows, sft.tokenizer, { maxPromptLength: 32 });
  sft.dispose();
  return { paths, folder, model, heldOut };
}

async function runMethod(method: string, seed: number, start: Start): Promise<MethodRun> {
  const out = join(start.folder, method);
  await trainInProcess([
    ...['train', method, '--model', start.model, '--data', start.paths.problems],
    ...['--eval-data', start.paths.heldOut, '--reward', 'exact-match', '--out', out],
    ...['--config', join(packageRoot(), 'examples', 'methods', `${method}.yaml`)],
    ...['--set', `seed=${seed}`, '--json'],
  ]);
  const metrics = (await readFile(join(out, 'metrics.jsonl'), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, number>);
  const record = JSON.parse(await readFile(join(out, 'config.json'), 'utf8')) as {
    config: { klCoef: number; promptsPerStep: number; groupSize: number };
  };
  const curve = metrics.flatMap(({ step = 0, 'eval/accuracy': accuracy }) =>
    accuracy === undefined ? [] : [{ step, accuracy }],
  );
  const reached = curve.find(({ accuracy }) => accuracy >= TARGET)?.step ?? null;
  const perRound = record.config.promptsPerStep * record.config.groupSize;
  const samples = metrics
    .slice(0, reached ?? 0)
    .reduce((sum, { samplingRounds = 1 }) => sum + samplingRounds * perRound, 0);
  const seconds = metrics.reduce((sum, { stepSeconds = 0 }) => sum + stepSeconds, 0);
  return {
    method,
    seed,
    curve,
    stepsToTarget: reached,
    samplesToTarget: reached === null ? null : samples,
    accuracy: curve.at(-1)?.accuracy ?? NaN,
    steps: metrics.length,
    seconds,
    peakMegabytes: Math.max(...metrics.map(({ peakResidentBytes = 0 }) => peakResidentBytes)) / 1e6,
    models: 1 + (record.config.klCoef > 0 ? 1 : 0) + (method === 'ppo' ? 1 : 0),
    kl: await measureKl(join(out, 'model'), start, seed),
  };
}

async function measureKl(folder: string, start: Start, seed: number): Promise<number> {
  const [policy, reference] = [await loadModel(folder), await loadModel(start.model)];
  try {
    return await klToReference(policy, reference, {
      prompts: start.heldOut,
      maxNewTokens: MAX_NEW_TOKENS,
      seed: deriveSeed(seed, 'reproduce kl'),
    });
  } finally {
    policy.dispose();
    reference.dispose();
  }
}

/** Our own command line in a process of its own: its peak memory is that of one run. */
function trainInProcess(args: readonly string[]): Promise<void> {
  const main = fileURLToPath(new URL(`../cli/main${extname(import.meta.url)}`, import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, main, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (part: Buffer) => (said = `${said}${part.toString()}`.slice(-2000)));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve();
      else
        reject(new IoError(`reproduce: ${args.slice(0, 2).join(' ')} ended with ${code}: ${said}`));
    });
  });
}

/** The folder of package.json, from sources and from the compiled program alike. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!isOurs(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

function isOurs(path: string): boolean {
  if (dirname(path) === dirname(dirname(path))) return true; // the root of the disk: what follows says what is missing
  return existsSync(path) && /"name":\s*"posttrain"/.test(readFileSync(path, 'utf8'));
}

function curvesOf(runs: readonly MethodRun[]) {
  return {
    title: 'Greedy accuracy on held-out problems',
    x: 'step',
    y: 'accuracy',
    series: [...new Set(runs.map(({ method }) => method))].map((name) => ({
      name,
      points: meanCurve(runs.filter(({ method }) => method === name)),
    })),
  };
}

/** Mean accuracy over seeds at each measured step. */
function meanCurve(runs: readonly MethodRun[]): [number, number][] {
  return (runs[0]?.curve ?? []).map(({ step }, at) => [
    step,
    runs.reduce((sum, { curve }) => sum + (curve[at]?.accuracy ?? NaN), 0) / runs.length,
  ]);
}

/** The table over seeds, and what was claimed. */
export function methodsReport(runs: readonly MethodRun[]): string {
  const names = [...new Set(runs.map(({ method }) => method))];
  const seeds = [...new Set(runs.map(({ seed }) => seed))];
  const range = (values: readonly (number | null)[], digits: number): string => {
    const known = values.filter((value) => value !== null);
    if (known.length < values.length) return `${known.length} of ${values.length} seeds`;
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const middle = known.reduce((sum, value) => sum + value, 0) / known.length;
    const text = middle.toFixed(digits);
    return low === high ? text : `${text} (${low.toFixed(digits)}–${high.toFixed(digits)})`;
  };
  const rows = names.map((name) => {
    const of = runs.filter(({ method }) => method === name);
    const column = (read: (run: MethodRun) => number | null, digits = 0): string =>
      range(of.map(read), digits);
    return [
      name,
      column((run) => run.stepsToTarget),
      column((run) => run.samplesToTarget),
      column((run) => run.seconds),
      column((run) => run.peakMegabytes),
      String(of[0]?.models ?? ''),
      column((run) => 100 * run.accuracy, 1),
      column((run) => run.kl, 2),
    ];
  });
  const heads = [
    'method',
    'steps to 90 %',
    'completions to 90 %',
    'seconds in all',
    'peak MB',
    'models',
    'final accuracy, %',
    'KL to SFT, nats',
  ];
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const short = names.filter((name) =>
    runs.some(({ method, stepsToTarget }) => method === name && stepsToTarget === null),
  );
  const verdict =
    short.length === 0
      ? `Seen here: yes. Every method reached ${100 * TARGET} % on every seed.`
      : `Seen here: no. On at least one seed these did not: ${short.join(', ')}.`;
  return [
    `# Methods from the same SFT checkpoint`,
    '',
    `Claim: each method reaches ${100 * TARGET} % greedy accuracy on the quickstart's held-out problems. ${verdict}`,
    `Seeds ${seeds.join(', ')}: mean, and range where they differ. Accuracy is measured every 5 steps.`,
    '',
    line(heads),
    line(heads.map(() => '---')),
    ...rows.map(line),
    '',
  ].join('\n');
}
