/** Our side of `generate`: tokens per second of the sampler that trainers and users call. */
import { ShapeError } from '../src/errors/index.js';
import { sample, type SampleOptions } from '../src/generation/index.js';
import { loadModel } from '../src/models/index.js';
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
  const { shape, dtype, batch, promptTokens, newTokens, limits, copies = 1, temperature = 1 } = job;
  const prompts = batch / copies;
  const model = (await loadModel(job.model, { dtype })).freeze();
  const flat = tidy(() => randint(0, shape.vocabSize, [prompts * promptTokens]).toTypedArray());
  const promptIds = Array.from({ length: prompts }, (_, row) =>
    Array.from(flat.subarray(row * promptTokens, (row + 1) * promptTokens)),
  );
  const run = (maxNewTokens: number, shouldStop?: SampleOptions['shouldStop']) =>
    sample({
      ...{ model, promptIds, maxNewTokens, temperature, eosTokenIds: [], seed: 1 },
      numCompletions: copies,
      ...(shouldStop && { shouldStop }),
    });
  const timed = () =>
    limits === undefined ? run(newTokens) : run(Math.max(...limits), endsAt(limits));
  const expected = limits?.reduce((sum, limit) => sum + limit, 0) ?? batch * newTokens;

  const warmUpEnd = performance.now() + 1000 * job.warmUpSeconds;
  do await run(WARM_UP_TOKENS);
  while (performance.now() < warmUpEnd);
  onWarm();
  const speeds: number[] = [];
  const end = performance.now() + 1000 * job.seconds;
  while (speeds.length < job.rounds || performance.now() < end) {
    const start = performance.now();
    const completions = await timed();
    const seconds = (performance.now() - start) / 1000;
    const tokens = completions.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
    if (tokens !== expected) {
      throw new ShapeError(`bench: expected ${expected} new tokens, received ${tokens}.`);
    }
    speeds.push(tokens / seconds);
  }
  return { 'tokens/s': speeds };
}

/**
 * Ends each row at a length of its own. Rows are told apart by the list that the sampler keeps for each, in the order in
 * which it first asks.
 */
function endsAt(limits: readonly number[]): NonNullable<SampleOptions['shouldStop']> {
  const limitOf = new Map<readonly number[], number>();
  return (tokenIds) => {
    const known = limitOf.get(tokenIds);
    const limit = known ?? limits[limitOf.size] ?? 0;
    if (known === undefined) limitOf.set(tokenIds, limit);
    return tokenIds.length >= limit;
  };
}
