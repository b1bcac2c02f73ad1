/** Our side of `generate`: tokens per second of the sampler that trainers and users call. */
import { sample } from '../src/generation/index.js';
import { createModel, makeDecoderConfig } from '../src/models/index.js';
import { randint, tidy } from '../src/torch/index.js';
import type { GenerateJob } from './jobs.js';

const WARM_UP_TOKENS = 8;

/**
 * New tokens over wall time. The time is that of one call of `sample`: packing the weights, the pass over the prompts,
 * every step, and the log-probability of each token, which the bare loop does not compute.
 *
 * @param onWarm called once when the warm-up is over
 */
export async function measureGenerate(
  job: GenerateJob,
  onWarm: () => void,
): Promise<Record<string, number[]>> {
  const { shape, batch, promptTokens, newTokens } = job;
  const model = createModel(makeDecoderConfig(shape), { seed: 0 }).freeze();
  const flat = tidy(() => randint(0, shape.vocabSize, [batch * promptTokens]).toTypedArray());
  const promptIds = Array.from({ length: batch }, (_, row) =>
    Array.from(flat.subarray(row * promptTokens, (row + 1) * promptTokens)),
  );
  const run = (maxNewTokens: number) =>
    sample({ model, promptIds, maxNewTokens, temperature: 1, eosTokenIds: [], seed: 1 });

  const warmUpEnd = performance.now() + 1000 * job.warmUpSeconds;
  do await run(WARM_UP_TOKENS);
  while (performance.now() < warmUpEnd);
  onWarm();
  const speeds: number[] = [];
  const end = performance.now() + 1000 * job.seconds;
  while (speeds.length < job.rounds || performance.now() < end) {
    const start = performance.now();
    const completions = await run(newTokens);
    const seconds = (performance.now() - start) / 1000;
    const tokens = completions.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
    speeds.push(tokens / seconds);
  }
  return { 'tokens/s': speeds };
}
