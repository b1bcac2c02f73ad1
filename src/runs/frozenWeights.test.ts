import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { saveSmallModel, smallModel } from '../../test/runs/smallModel.js';
import { configFromObject, type ConfigSource } from '../config/index.js';
import { createScalarModel, createStepModel } from '../models/index.js';
import {
  createDpoRun,
  createGrpoRun,
  createKtoRun,
  createOnlineDpoRun,
  createPpoRun,
} from './index.js';
import { restingFolder } from './frozenWeights.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-frozen-weights-'));
const model = join(root, 'model');
const judge = join(root, 'judge');
const stepJudge = join(root, 'stepJudge');
before(async () => {
  await saveSmallModel(model, { seed: 4 });
  const { model: trunk, tokenizer } = smallModel({ seed: 5 });
  const scalar = createScalarModel(trunk, { seed: 1, std: 0.5 });
  await scalar.save(judge);
  scalar.dispose();
  await tokenizer.save(judge);
  const other = smallModel({ seed: 6 });
  const steps = createStepModel(other.model, { seed: 1, std: 0.5, stepSeparator: '+' });
  await steps.save(stepJudge);
  steps.dispose();
  await other.tokenizer.save(stepJudge);
});
after(() => rmSync(root, { recursive: true }));
let folders = 0;
const newPath = (): string => join(root, `run${folders++}`);

const prompts = Array.from({ length: 13 }, (_, i) => ({
  prompt: `${i}+${i}=`,
  answer: `${2 * i}`,
}));
const pairs = prompts.map(({ prompt, answer }) => ({
  ...{ prompt, chosen: answer },
  rejected: `${answer}0`,
}));
const lengthOf = ({ completion }: { completion: string }): number => completion.length;
const rewards = [lengthOf, `model:${judge}`];
const stepRewards = [lengthOf, `prm-steps:${stepJudge}`];

interface Options {
  readonly out: string;
  readonly config: ConfigSource;
}
interface Trainable {
  train(options: { progress: null }): Promise<unknown>;
  dispose(): void;
}
const given = { model, progress: null };
const RUNS: Readonly<Record<string, (options: Options) => Promise<Trainable>>> = {
  grpo: (options) => createGrpoRun({ ...given, ...options, data: prompts, rewards }),
  'grpo by steps': (options) =>
    createGrpoRun({ ...given, ...options, data: prompts, rewards: stepRewards }),
  ppo: (options) => createPpoRun({ ...given, ...options, data: prompts, rewards }),
  'online-dpo': (options) => createOnlineDpoRun({ ...given, ...options, data: prompts, rewards }),
  dpo: (options) => createDpoRun({ ...given, ...options, data: pairs }),
  kto: (options) => createKtoRun({ ...given, ...options, data: pairs }),
};
const isLinux = process.platform === 'linux';
const ON_POLICY = { steps: 3, promptsPerStep: 6, sampling: { maxNewTokens: 4 } };
const GIVEN = { maxSteps: 3, batchSize: 5, microBatchTokens: 40 };

/** Method, settings, and how many models it freezes that have weights of their own. */
const CASES: readonly [method: string, config: object, files: number][] = [
  ['grpo', { ...ON_POLICY, klCoef: 0.1 }, 2],
  ['grpo', { ...ON_POLICY, klCoef: 0.1, referenceEvery: 1 }, 2],
  ['grpo', { ...ON_POLICY, klCoef: 0.1, lora: { rank: 2 } }, 1],
  ['grpo by steps', { ...ON_POLICY, klCoef: 0 }, 1],
  ['ppo', { ...ON_POLICY, klCoef: 0.1, minibatchSize: 3 }, 2],
  ['online-dpo', ON_POLICY, 2],
  ['dpo', GIVEN, 1],
  ['dpo', { ...GIVEN, referenceEvery: 1, referenceMix: 0.5 }, 1],
  ['dpo', { ...GIVEN, dtype: 'bfloat16' }, 1],
  ['kto', GIVEN, 1],
];

interface Mapped {
  readonly files: number;
  /** KiB in memory. */
  readonly resident: number;
}

/** Files without a name that this process has mapped. */
function namelessFiles(): Mapped {
  const entries = readFileSync('/proc/self/smaps', 'utf8').matchAll(
    /\.weights \(deleted\)\n[^]*?^Rss: +(\d+) kB$/gm,
  );
  const sizes = Array.from(entries, ([, kilobytes]) => Number(kilobytes));
  return { files: sizes.length, resident: sizes.reduce((sum, size) => sum + size, 0) };
}

async function trained(
  method: string,
  config: object,
): Promise<{ readonly weights: Buffer; readonly mapped: Mapped | null }> {
  const out = newPath();
  const all = { learningRate: 1e-2, warmupSteps: 0, seed: 3, ...config };
  const run = await (RUNS[method] ?? assert.fail(method))({
    out,
    config: configFromObject(all, 'test'),
  });
  try {
    await run.train({ progress: null });
    const mapped = isLinux ? namelessFiles() : null;
    return { weights: readFileSync(join(out, 'model', weightsName(out))), mapped };
  } finally {
    run.dispose();
  }
}

const weightsName = (out: string): string =>
  readdirSync(join(out, 'model')).find((name) => name.endsWith('.safetensors')) ?? '';

describe('frozenWeights', () => {
  for (const [method, config, files] of CASES)
    test(`disk trains the same bits as memory: ${method} ${JSON.stringify(config)}`, async () => {
      const onDisk = await trained(method, config);
      const inMemory = await trained(method, { ...config, frozenWeights: 'memory' });
      assert.ok(onDisk.weights.equals(inMemory.weights));
      if (!isLinux) return;
      const none = { files: 0, resident: 0 };
      assert.deepEqual([inMemory.mapped, namelessFiles()], [none, none]);
      // Since the last update, the last checkpoint has read a reference that moves.
      const resident = 'referenceEvery' in config ? onDisk.mapped?.resident : 0;
      assert.deepEqual(onDisk.mapped, { files, resident });
    });

  if (isLinux)
    test('a reference that moves rests while the next rollout is drawn', async () => {
      const resident: number[] = [];
      const spying = (input: { completion: string }): number => {
        resident.push(namelessFiles().resident);
        return lengthOf(input);
      };
      const config = { ...ON_POLICY, klCoef: 0.1, referenceEvery: 1, seed: 3 };
      const all = { ...given, out: newPath(), config: configFromObject(config, 'test') };
      const run = await createGrpoRun({ ...all, data: prompts, rewards: [spying] });
      await run.train({ progress: null });
      run.dispose();
      assert.ok(resident.length > 0);
      assert.deepEqual(new Set(resident), new Set([0]));
    });

  test('a run rests on the disk of its directory, where that is or will be', () => {
    const out = join(root, 'none', 'yet', 'run');
    assert.equal(restingFolder(out), root);
    assert.equal(restingFolder(relative(process.cwd(), out)), root);
    assert.deepEqual(
      readdirSync(root).filter((name) => name.endsWith('.weights')),
      [],
    );
  });

  if (isLinux)
    test('weights stay in memory, which is told, where files are memory or cannot be made', async () => {
      assert.equal(restingFolder('/proc/posttrain-run'), null);
      const shared = mkdtempSync('/dev/shm/posttrain-frozen-');
      try {
        for (const [config, isTold] of [
          [GIVEN, true],
          [{ ...GIVEN, frozenWeights: 'memory' }, false],
          [{ ...GIVEN, lora: { rank: 2 } }, false],
        ] as const) {
          let said = '';
          const progress = { write: (text: string) => ((said += text), true) };
          const run = await createDpoRun({
            ...{ ...given, data: pairs, config: configFromObject(config, 'test') },
            ...{
              out: join(shared, `run${folders++}`),
              progress,
            },
          });
          assert.equal(namelessFiles().files, 0);
          run.dispose();
          assert.equal(said.includes('Frozen weights stay in memory'), isTold);
        }
      } finally {
        rmSync(shared, { recursive: true });
      }
    });
});
