/** A pipeline on a small model, and what tests read of its folder. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import type { RlhfConfigInput } from '../../src/config/index.js';
import type { PosttrainError } from '../../src/errors/index.js';
import {
  createRlhfRun,
  type RlhfResult,
  type RlhfRunOptions,
  type RlhfStageRecord,
} from '../../src/runs/index.js';
import { saveSmallModel } from './smallModel.js';

/** A folder of this process, which is removed at the end. */
export const root = mkdtempSync(join(tmpdir(), 'posttrain-rlhf-'));
export const model = join(root, 'model');
before(() => saveSmallModel(model));
after(() => rmSync(root, { recursive: true }));
let folders = 0;
export const newPath = (): string => join(root, `run${folders++}`);

export const demonstrations = Array.from({ length: 20 }, (_, i) => ({
  prompt: `${i}+${i}=`,
  completion: `${2 * i}`,
}));
export const prompts = demonstrations.slice(0, 8).map(({ prompt }) => ({ prompt }));
export const evalPrompts = demonstrations.slice(8, 12).map(({ prompt }) => ({ prompt }));

/** 8 prompts 9 times are 72 rankings of 4: two chunks, the last one of 8. */
export const CONFIG: RlhfConfigInput = {
  sft: { maxSteps: 8, batchSize: 8, learningRate: 1e-2, maxLength: 16, checkpointEvery: 3 },
  preferences: { rankingsPerPrompt: 9, sampling: { maxNewTokens: 3 }, heldOutShare: 0.25 },
  reward: { maxSteps: 8, batchSize: 8, learningRate: 1e-2, maxLength: 16, checkpointEvery: 3 },
  ppo: {
    ...{ steps: 6, promptsPerStep: 6, minibatchSize: 3, updatesPerRollout: 2 },
    ...{ learningRate: 1e-2, checkpointEvery: 2, sampling: { maxNewTokens: 3 }, evalEvery: 3 },
  },
  grpo: {
    ...{ steps: 4, promptsPerStep: 3, groupSize: 4, learningRate: 1e-2, checkpointEvery: 2 },
    sampling: { maxNewTokens: 3 },
  },
  dpo: { maxSteps: 8, batchSize: 8, learningRate: 1e-3, warmupSteps: 0, maxLength: 16 },
  evalSamples: 3,
  seed: 5,
};

/** Even digits are good, and more of them are better. */
export const evenDigits = ({ completion }: { completion: string }): number =>
  (completion.match(/[02468]/g) ?? []).length;

/** A pipeline with other settings or inputs than `CONFIG`, in a new folder. */
export function options(
  config: RlhfConfigInput = {},
  more: Partial<RlhfRunOptions> = {},
): RlhfRunOptions {
  return {
    ...{ model, demonstrations, prompts, evalPrompts },
    ...{ annotator: evenDigits, evalReward: evenDigits },
    out: newPath(),
    config: { ...CONFIG, ...config },
    progress: null,
    ...more,
  };
}

/** Works to the end, or until the signal. */
export async function trained(given: RlhfRunOptions, signal?: AbortSignal): Promise<RlhfResult> {
  const run = await createRlhfRun(given);
  try {
    return await run.train({ progress: null, signal });
  } finally {
    run.dispose();
  }
}

export const hash = (path: string): string =>
  createHash('sha256').update(readFileSync(path)).digest('hex');

export const linesOf = (path: string): Record<string, unknown>[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

/** Contents of rlhf.json. */
export const recordOf = (
  out: string,
): { stages: RlhfStageRecord[]; measurements?: Record<string, unknown>[] } =>
  JSON.parse(readFileSync(join(out, 'rlhf.json'), 'utf8')) as {
    stages: RlhfStageRecord[];
    measurements?: Record<string, unknown>[];
  };

const FILES = [
  '1-sft/model/model.safetensors',
  '2-preferences/rankings.jsonl',
  '2-preferences/preferences.jsonl',
  '2-preferences/train.jsonl',
  '2-preferences/held-out.jsonl',
  '3-reward/model/model.safetensors',
  '3-reward/model/config.json',
  '4-ppo/model/model.safetensors',
  'model/model.safetensors',
];

/** Hashes of everything that must not depend on interruptions; what is told of the stages without times. */
export function resultOf(out: string): Record<string, unknown> {
  const { stages, measurements } = recordOf(out);
  const metrics = linesOf(join(out, 'metrics.jsonl')).map(({ time: _time, ...values }) => values);
  return {
    ...Object.fromEntries(FILES.map((name) => [name, hash(join(out, name))])),
    stages: stages.map(({ seconds: _seconds, ...stage }) => stage),
    ...{ measurements, metrics },
  };
}

/** Asserts class and message. */
export async function refused(
  work: Promise<unknown>,
  kind: abstract new (message: string) => PosttrainError,
  message: RegExp,
): Promise<void> {
  await assert.rejects(work, (error) => {
    assert.ok(error instanceof kind, `${String(error)} is no ${kind.name}`);
    assert.match(error.message, message);
    assert.ok(error.hint !== undefined, 'the error says what to do');
    return true;
  });
}
