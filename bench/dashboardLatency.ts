/**
 * How fast the dashboard answers while a training has all cores: GRPO of a model of the quickstart's size, started with
 * `--dashboard`, and questions as soon as samples are there.
 *
 *     npx tsx bench/dashboardLatency.ts [SECONDS]    seconds of questions; 20 unless said
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunList } from '../src/dashboard/protocol.js';
import { createModel, makeDecoderConfig } from '../src/models/index.js';
import { createCharacterTokenizer } from '../src/tokenizers/index.js';
import { ROOT } from '../test/root.js';

const seconds = Number(process.argv[2] ?? 20);
const PAUSE_MS = 50;
const CLI = join(ROOT, 'dist/src/cli/main.js');

const say = (text: string): void => void process.stdout.write(`${text}\n`);
const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Starts a training that goes on for longer than we look at it. */
async function startTraining(folder: string): Promise<ChildProcess> {
  const tokenizer = createCharacterTokenizer({ characters: '0123456789+=' });
  const { vocabSize, eosTokenId = null, padTokenId = null } = tokenizer;
  const shape = { hiddenSize: 128, intermediateSize: 344, numLayers: 4, numHeads: 4 };
  const special = { eosTokenId, padTokenId, maxPositionEmbeddings: 128 };
  const model = createModel(makeDecoderConfig({ vocabSize, ...shape, ...special }), { seed: 1 });
  await model.save(join(folder, 'model'));
  await tokenizer.save(join(folder, 'model'));
  model.dispose();
  const rows = Array.from({ length: 64 }, (_, at) => ({ prompt: `${at}+7=`, answer: `${at + 7}` }));
  writeFileSync(join(folder, 'rows.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  const settings = [
    ...['steps=100000', 'promptsPerStep=6', 'groupSize=16', 'sampling.maxNewTokens=64'],
    ...['samplesPerStep=16', 'checkpointEvery=100000'],
  ].flatMap((setting) => ['--set', setting]);
  const inputs = ['--model', join(folder, 'model'), '--data', join(folder, 'rows.jsonl')];
  const reward = ['--reward', 'exact-match', '--out', join(folder, 'run'), '--dashboard'];
  const args = [CLI, 'train', 'grpo', ...inputs, ...reward, ...settings];
  return spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** The address that a dashboard prints. */
function addressOf(training: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    training.stderr?.on('data', (piece: Buffer) => {
      text += piece.toString();
      const found = /Dashboard: (http:\S+)/.exec(text)?.[1];
      if (found !== undefined) resolve(found);
    });
    training.once('exit', () => reject(new TypeError(`the training has ended: ${text}`)));
  });
}

function quantile(sorted: readonly number[], share: number): string {
  const at = Math.min(sorted.length - 1, Math.floor(share * sorted.length));
  return (sorted[at] ?? NaN).toFixed(1).padStart(7);
}

async function timed(url: URL): Promise<number> {
  const begin = performance.now();
  await (await fetch(url)).arrayBuffer();
  return performance.now() - begin;
}

const folder = mkdtempSync(join(tmpdir(), 'posttrain-latency-'));
const training = await startTraining(folder);
try {
  const address = await addressOf(training);
  const sampled = async (): Promise<string | undefined> => {
    const list = (await (await fetch(new URL('api/runs', address))).json()) as RunList;
    return list.runs.find(({ state, samples }) => state === 'running' && samples > 0)?.id;
  };
  let run = await sampled();
  for (; run === undefined; run = await sampled()) {
    if (training.exitCode !== null) throw new TypeError('the training has ended too early');
    await wait(200);
  }
  const paths = [
    'api/info',
    'api/runs',
    `api/runs/${run}/samples?sort=-step&limit=100`,
    `api/runs/${run}/series`,
  ];
  const times = new Map(paths.map((path) => [path, [] as number[]]));
  for (const end = performance.now() + 1000 * seconds; performance.now() < end;) {
    for (const path of paths) {
      times.get(path)?.push(await timed(new URL(path, address)));
      await wait(PAUSE_MS);
    }
  }
  const [load = NaN] = loadavg();
  say(`${availableParallelism()} cores, load ${load.toFixed(1)}; milliseconds to a whole answer`);
  say(`${''.padEnd(44)}median    95 %    99 %  longest`);
  for (const [path, all] of times) {
    all.sort((a, b) => a - b);
    const columns = [0.5, 0.95, 0.99, 1].map((share) => quantile(all, share));
    say(`${path.replace(run, ':run').padEnd(42)} ${columns.join(' ')}   ${all.length} answers`);
  }
} finally {
  training.kill('SIGKILL'); // its dashboard ends with it
  await new Promise((resolve) =>
    training.exitCode === null ? training.once('exit', resolve) : resolve(0),
  );
  rmSync(folder, { recursive: true });
}
