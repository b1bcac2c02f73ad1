/** A job of rejection sampling on a small model, and what tests read of its folder. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import type { RejectionConfigInput } from '../../src/config/index.js';
import { createScalarModel } from '../../src/models/index.js';
import {
  createRejectionRun,
  type RejectionResult,
  type RejectionRunOptions,
} from '../../src/runs/index.js';
import { saveSmallModel, smallModel } from './smallModel.js';

/** A folder of this process, which is removed at the end. */
export const root = mkdtempSync(join(tmpdir(), 'posttrain-rejection-'));
export const model = join(root, 'model');
export const rewardModel = join(root, 'judge');
before(async () => {
  await saveSmallModel(model);
  const { model: trunk, tokenizer } = smallModel({ seed: 4 });
  await createScalarModel(trunk, { seed: 1, std: 0.5 }).save(rewardModel);
  await tokenizer.save(rewardModel);
});
after(() => rmSync(root, { recursive: true }));
let folders = 0;
const newPath = (): string => join(root, `run${folders++}`);

export const problems = Array.from({ length: 4 }, (_, i) => ({
  prompt: `${i}+${i}=`,
  answer: `${2 * i}`,
}));

/** With 128 samples of each of 4 prompts there are two chunks of two prompts. */
export const N = 128;

export const CONFIG: RejectionConfigInput = {
  iterations: 2,
  samplesPerPrompt: N,
  keepTruncated: true,
  keep: { kind: 'topK', k: 3 },
  sampling: { maxNewTokens: 3 },
  seed: 5,
  sft: { maxSteps: 4, batchSize: 8, learningRate: 1e-2, maxLength: 32, checkpointEvery: 2 },
};

/** Even digits are good, and more of them are better. */
export const evenDigits = ({ completion }: { completion: string }): number =>
  (completion.match(/[02468]/g) ?? []).length;

/** A job with other settings or inputs than `CONFIG`, in a new folder. */
export function options(
  config: RejectionConfigInput = {},
  more: Partial<RejectionRunOptions> = {},
): RejectionRunOptions {
  return {
    model,
    data: problems,
    rewards: [evenDigits],
    out: newPath(),
    config: { ...CONFIG, ...config },
    progress: null,
    ...more,
  };
}

/** Works to the end, or until the signal. */
export async function trained(
  given: RejectionRunOptions,
  signal?: AbortSignal,
): Promise<RejectionResult> {
  const run = await createRejectionRun(given);
  try {
    return await run.train({ progress: null, signal });
  } finally {
    run.dispose();
  }
}

/** The lines of a JSONL file, of which none may be torn. */
export function linesOf<Line>(path: string): Line[] {
  const text = readFileSync(path, 'utf8');
  assert.ok(text.endsWith('\n'), `${path} ends with a whole line`);
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
}

export const hash = (path: string): string =>
  createHash('sha256').update(readFileSync(path)).digest('hex');

/** Hashes of everything that must not depend on interruptions; metrics without their times. */
export function resultOf(out: string, iterations = 2): Record<string, string> {
  const files = Array.from({ length: iterations }, (_, index) => `iteration-${index + 1}`).flatMap(
    (name) => [
      `${name}/samples.jsonl`,
      `${name}/selected.jsonl`,
      `${name}/sft/model/model.safetensors`,
      `checkpoints/step-${name.slice(-1)}/model/model.safetensors`,
    ],
  );
  const metrics = linesOf<Record<string, unknown>>(join(out, 'metrics.jsonl')).map(
    ({ time: _time, ...values }) => values,
  );
  return {
    ...Object.fromEntries(
      [...files, 'model/model.safetensors'].map((name) => [name, hash(join(out, name))]),
    ),
    metrics: JSON.stringify(metrics),
  };
}
