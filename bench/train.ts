/** Our side of the training cells: whole steps of a run, built as `posttrain train` builds it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createDpoRun,
  createGrpoRun,
  createPpoRun,
  createRewardRun,
  createSftRun,
} from '../src/runs/index.js';
import type { TrainJob } from './jobs.js';
import { rewardFolderOf } from './modelFolder.js';

/** The Python side computes the same number from the same character. */
function rewardOf({ completion }: { completion: string }): number {
  return (completion.codePointAt(0) ?? 0) % 5;
}

/**
 * Wall time between the ends of steps: sampling, rewards, the update, metrics and whatever the run does between steps.
 * Building the run and the first `warmUpSteps` are not timed. Settings are the defaults wherever the job names none.
 *
 * @returns per timed step, tokens per second and the tokens that were counted, prompts included
 */
export async function measureTrain(
  job: TrainJob,
  onWarm: () => void,
): Promise<Record<string, number[]>> {
  const { method, rows, groupSize, newTokens, klCoef, dtype, warmUpSteps, rounds } = job;
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-bench-'));
  const steps = warmUpSteps + rounds;
  const base = { model: job.model, data: job.data, out: join(folder, 'run'), progress: null };
  const common = {
    checkpointEvery: null,
    ...(dtype === 'mixed' ? { precision: 'bf16-mixed' as const } : { dtype }),
    ...(job.microBatchTokens !== undefined && { microBatchTokens: job.microBatchTokens }),
    ...(job.lora && { lora: { rank: job.lora.rank, alpha: job.lora.alpha } }),
  };
  const offline = { ...common, maxSteps: steps, batchSize: rows };
  const sampling = { maxNewTokens: newTokens };
  const online = { ...common, steps, promptsPerStep: rows, groupSize, sampling, klCoef };
  const create = {
    sft: () => createSftRun({ ...base, config: offline }),
    dpo: () => createDpoRun({ ...base, config: offline }),
    reward: () => createRewardRun({ ...base, config: offline }),
    grpo: () => createGrpoRun({ ...base, rewards: [rewardOf], config: online }),
    ppo: () =>
      createPpoRun({ ...base, rewards: [`model:${rewardFolderOf(job.model)}`], config: online }),
  };
  try {
    const run = await create[method]();
    const ends: number[] = [];
    const tokens: number[] = [];
    await run.train({
      progress: null,
      onStep: (step, metrics) => {
        ends.push(performance.now());
        tokens.push(metrics['tokens'] ?? NaN);
        if (step === warmUpSteps) onWarm();
        return undefined;
      },
    });
    const seconds = ends.slice(1).map((end, index) => (end - (ends[index] ?? NaN)) / 1000);
    const timed = seconds.slice(warmUpSteps - 1);
    const counted = tokens.slice(warmUpSteps);
    return {
      'tokens/s': counted.map((count, index) => count / (timed[index] ?? NaN)),
      'tokens per step': counted,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
