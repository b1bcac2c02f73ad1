/**
 * Packs the package, installs it into an empty project, and uses it there as a user does: imports, types, the command
 * line, a training with a reward in TypeScript. HOME and the cache are new; libtorch is the one of this checkout, and so
 * is the addon where its key says that a compilation would give the same.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT } from '../setup.mjs';
import { addonPath, planAddon } from '../setup/addon.mjs';
import { filesBelow, readJson, writeAtomic } from '../setup/files.mjs';
import { findProgram, runProgram } from '../setup/process.mjs';
import { SetupError, logToStderr, megabytes } from '../setup/report.mjs';

const TIMEOUT_SECONDS = 10 * 60;

/** What may not be in the tarball, and what must be: the page, the settings of `reproduce`, what `setup` needs. */
const FORBIDDEN =
  /\.test\.|\.map$|^(test|bench|tools|docs|src|dist\/(test|bench|tools|examples))\//;
const NEEDED = ['dist/ui/index.html', 'examples/rlhf/rlhf.yaml', 'native/src/addon.cpp'];

const IMPORTS = `
import { readFileSync } from 'node:fs';
const { exports } = JSON.parse(readFileSync('node_modules/posttrain/package.json', 'utf8'));
for (const entry of Object.keys(exports)) {
  if (!entry.endsWith('.json')) await import('posttrain' + entry.slice(1));
}
const { tensor } = await import('posttrain/torch');
try {
  console.log(tensor([1, 2]).sum().item());
} catch ({ code, message, hint }) {
  console.log(code, message, hint);
}`;

const CONSUMER = `
import { createGrpoRun, generate, loadModel, type Run } from 'posttrain';
import { ppoClipLoss } from 'posttrain/algorithms';
import { calculatorEnvironment } from 'posttrain/environments';
import type { RewardFunction } from 'posttrain/rewards';
import * as tasks from 'posttrain/tasks';
import { tensor, type Tensor } from 'posttrain/torch';

const reward: RewardFunction = ({ completion }) => completion.length;
const run = await createGrpoRun({ model: 'm', data: 'd.jsonl', out: 'o', rewards: [reward] });
const result: Promise<{ readonly metrics: Readonly<Record<string, number>> }> = run.train();
const sum: Tensor = tensor([1]).sum();
// @ts-expect-error steps is a number
void createGrpoRun({ model: 'm', data: 'd', out: 'o', rewards: [], config: { steps: 'all' } });
export { calculatorEnvironment, generate, loadModel, ppoClipLoss, result, sum, tasks, type Run };
`;

const REWARD = `
import type { RewardInput } from 'posttrain/rewards';
export default function reward({ completion, row }: RewardInput<{ answer: string }>): number {
  return completion.startsWith(row.answer satisfies string) ? 1 : 0;
}
`;

/**
 * @param {{ compile?: boolean }} [options] `compile` takes no addon that is there already.
 * @returns {Promise<string | undefined>} What is wrong, or undefined.
 */
export async function checkPackage({ compile = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-package-'));
  try {
    return await checkIn(folder, compile);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    return [error.message, error.detail].join('\n');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @param {string} folder @param {boolean} compile @returns {Promise<string | undefined>} */
async function checkIn(folder, compile) {
  const { libtorch } = readJson(join(ROOT, 'build/setup.json'));
  const { stdout: npmCache } = await run('npm', ['config', 'get', 'cache'], { cwd: ROOT });
  const env = {
    ...process.env,
    ...{ HOME: join(folder, 'home'), POSTTRAIN_CACHE: join(folder, 'cache') },
    ...{ LIBTORCH: libtorch.path, npm_config_cache: npmCache.trim(), HF_HUB_OFFLINE: '1' },
  };
  const project = join(folder, 'project');
  const at = { cwd: project, env };
  mkdirSync(join(folder, 'home'), { recursive: true });
  mkdirSync(project);

  const packing = ['pack', '--json', '--pack-destination', folder];
  const [packed] = JSON.parse((await run('npm', packing, { cwd: ROOT })).stdout);
  logToStderr(
    `package: ${megabytes(packed.size)} packed, ${megabytes(packed.unpackedSize)} unpacked`,
  );
  writeAtomic(join(project, 'package.json'), '{ "private": true, "type": "module" }');
  const quiet = ['--no-audit', '--no-fund', '--prefer-offline'];
  // What a project in TypeScript for Node has beside it.
  const nodeTypes = `@types/node@${readJson(join(ROOT, 'package.json')).devDependencies['@types/node']}`;
  await run('npm', ['install', ...quiet, join(folder, packed.filename), nodeTypes], at);
  const installed = join(project, 'node_modules/posttrain');
  const faults = faultsOfFiles(installed);
  if (faults.length > 0) return faults.join('\n');

  writeAtomic(join(project, 'imports.mjs'), IMPORTS);
  const before = await run(process.execPath, ['imports.mjs'], at);
  if (!/^E_NATIVE native: .* has not been built .*npx posttrain setup/.test(before.stdout))
    return `Without an addon a tensor gave: ${before.output}`;

  const posttrain = (/** @type {string[]} */ ...args) =>
    run('npx', ['--offline', 'posttrain', ...args], at);
  if (!compile) await placeAddon(installed, env, libtorch);
  const first = await posttrain(
    'init',
    '--out',
    'model',
    '--characters',
    'abcd',
    '--hidden-size',
    '32',
  );
  if (!first.output.includes('posttrain is set up for this machine, once:')) return first.output;
  await posttrain('setup');
  const doctor = await posttrain('doctor');
  if (!doctor.stdout.includes('posttrain can be used here.')) return doctor.output;
  const after = await run(process.execPath, ['imports.mjs'], at);
  if (after.stdout !== '3\n') return `With the addon a tensor gave: ${after.output}`;

  await checkTypes(project);
  return await train(project, posttrain);
}

/**
 * Puts the addon of the checkout where the set-up of the installed package looks for its own, unless sources, flags,
 * compiler or libtorch differ.
 * @param {string} installed
 * @param {NodeJS.ProcessEnv} env
 * @param {import('../setup/libtorch.mjs').Libtorch} libtorch
 */
async function placeAddon(installed, env, libtorch) {
  const url = pathToFileURL(join(ROOT, 'dist/src/torch/installation.js')).href;
  const { installedHome } = await import(url);
  const plan = planAddon({ root: installed, home: installedHome(installed, env), env, libtorch });
  const ours = planAddon({ root: ROOT, env: process.env, libtorch });
  if (plan.key !== ours.key || readJson(join(ours.folder, 'built.json'))?.key !== plan.key) return;
  mkdirSync(plan.folder, { recursive: true });
  cpSync(addonPath(ours), addonPath(plan));
  cpSync(join(ours.folder, 'built.json'), join(plan.folder, 'built.json'));
}

/** @param {string} project */
async function checkTypes(project) {
  writeAtomic(join(project, 'consumer.ts'), CONSUMER);
  const compilerOptions = {
    ...{ module: 'nodenext', moduleResolution: 'nodenext', target: 'es2022', lib: ['es2023'] },
    types: ['node'],
    ...{ strict: true, exactOptionalPropertyTypes: true, skipLibCheck: false, noEmit: true },
  };
  const settings = { compilerOptions, files: ['consumer.ts'] };
  writeAtomic(join(project, 'tsconfig.json'), JSON.stringify(settings));
  const compiler = join(ROOT, 'node_modules/typescript/bin/tsc');
  await run(process.execPath, [compiler, '-p', project, '--pretty', 'false'], { cwd: project });
}

/**
 * @param {string} project
 * @param {(...args: string[]) => Promise<import('../setup/process.mjs').ProgramResult>} posttrain
 * @returns {Promise<string | undefined>}
 */
async function train(project, posttrain) {
  const rows = ['ab', 'cd'].map((prompt) => JSON.stringify({ prompt, answer: prompt[0] }));
  writeAtomic(join(project, 'prompts.jsonl'), `${rows.join('\n')}\n`);
  writeAtomic(join(project, 'reward.ts'), REWARD);
  const settings = ['steps=2', 'promptsPerStep=2', 'groupSize=4', 'sampling.maxNewTokens=2'];
  await posttrain(
    ...['train', 'grpo', '--model', 'model', '--data', 'prompts.jsonl', '--out', 'run'],
    ...['--reward', './reward.ts', ...settings.flatMap((setting) => ['--set', setting])],
  );
  const metrics = readFileSync(join(project, 'run/metrics.jsonl'), 'utf8').trim().split('\n');
  return metrics.length === 2 ? undefined : `Two steps wrote ${metrics.length} lines of metrics.`;
}

/** @param {string} installed @returns {string[]} Files too many or too few, and imports that lead nowhere. */
function faultsOfFiles(installed) {
  const files = filesBelow(installed, () => true);
  const { dependencies } = readJson(join(installed, 'package.json'));
  return [
    ...files.filter((file) => FORBIDDEN.test(file)).map((file) => `${file} is in the package`),
    ...NEEDED.filter((file) => !files.includes(file)).map((file) => `${file} is missing`),
    ...files
      .filter((file) => /^dist\/src\/.*\.(js|d\.ts)$/.test(file))
      .flatMap((file) => lostImports(installed, file, ['posttrain', ...Object.keys(dependencies)])),
  ];
}

/** @param {string} installed @param {string} file @param {string[]} dependencies @returns {string[]} */
function lostImports(installed, file, dependencies) {
  const text = readFileSync(join(installed, file), 'utf8');
  const found = text.matchAll(
    /(?:^import|^(?:import|export|}) .*\bfrom) ['"]([^'"\n]+)['"];$|\bimport\(['"]([^'"\n]+)['"]\)/gm,
  );
  return [...found].flatMap(([, first, second]) => {
    const target = first ?? second ?? '';
    if (target.startsWith('node:')) return [];
    const path = resolve(installed, dirname(file), target);
    const known = target.startsWith('.')
      ? existsSync(path)
      : dependencies.some((name) => target === name || target.startsWith(`${name}/`));
    return known ? [] : [`${file} imports ${relative(installed, path)}, which is not installed`];
  });
}

/**
 * @param {string} name
 * @param {readonly string[]} args
 * @param {{ cwd: string, env?: NodeJS.ProcessEnv }} options
 * @returns {Promise<import('../setup/process.mjs').ProgramResult>}
 * @throws {SetupError} When it fails.
 */
async function run(name, args, options) {
  const program = findProgram(name, process.env) ?? name;
  const result = await runProgram(program, args, { ...options, timeoutSeconds: TIMEOUT_SECONDS });
  if (result.code === 0) return result;
  throw new SetupError(`${name} ${args.join(' ')} ended with code ${result.code}.`, {
    detail: result.output.trim().split('\n').slice(-60).join('\n'),
  });
}
