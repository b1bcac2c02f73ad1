/** That a trainer hands its settings to the optimizer, and drops the gradient of a step after it. */
import assert from 'node:assert/strict';
import type { Decoder } from '../src/models/index.js';
import type { Trainer } from '../src/trainers/trainer.js';
import { expectClose } from './expect.js';
import { EPS } from './pairFormulas.js';
import { parameterDistance, parameterValues } from './tinyRun.js';

/** Two steps of warm-up, then linear to the end. */
export const FOUR_STEPS = { warmupSteps: 2, schedule: { kind: 'linear' as const } };

/**
 * Learning rates of four steps with the settings `FOUR_STEPS`, and that no gradient is left for the next step.
 *
 * @param rate the learning rate after warm-up
 */
export async function requireFourSteps(
  { trainer, policy }: { trainer: Trainer; policy: Decoder },
  rate: number,
): Promise<void> {
  for (const share of [0, 0.5, 1, 0.5]) {
    const { metrics } = await trainer.trainStep();
    expectClose(metrics['learningRate'] ?? NaN, share * rate, { atol: 1e-15 });
    for (const parameter of policy.parameters())
      assert.equal(parameter.grad, null, 'the gradient of a step must not be in the next one');
  }
}

/**
 * That the gradient is clipped to a norm c, from how far the first step of Adam (eps `EPS`) goes: entries of at most c
 * move by at most α·c/(c + ε), and without clipping some go further.
 */
export async function requireClippedStep(
  make: (maxGradNorm: number | null) => { trainer: Trainer; policy: Decoder },
  rate: number,
): Promise<void> {
  const norm = 1e-3;
  const farthest = (rate * norm) / (norm + EPS);
  const moved = async (maxGradNorm: number | null): Promise<number> => {
    const { trainer, policy } = make(maxGradNorm);
    const before = parameterValues(policy);
    const { metrics } = await trainer.trainStep();
    assert.ok((metrics['gradNorm'] ?? 0) > norm, 'the norm before clipping is told');
    return parameterDistance(parameterValues(policy), before);
  };
  const clipped = await moved(norm);
  assert.ok(clipped > 0 && clipped <= farthest * (1 + 1e-9), `${clipped} exceeds ${farthest}`);
  const free = await moved(null);
  assert.ok(free > 2 * farthest, `unclipped it must go further than ${farthest}, not ${free}`);
}
