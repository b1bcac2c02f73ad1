/** Steps of supervised fine-tuning over rows of very different length, packed or not. */
import { SftConfig } from '../src/config/index.js';
import { SeededRandom, type SftExample } from '../src/data/index.js';
import { createModel, makeDecoderConfig } from '../src/models/index.js';
import { AdamW, decayGroups } from '../src/optim/index.js';
import { SftTrainer } from '../src/trainers/index.js';
import type { PackingJob } from './jobs.js';

/** Tokens per second of whole optimizer steps, padding not counted; the first step is not timed. */
export async function measurePacking(job: PackingJob): Promise<Record<string, number[]>> {
  const { shape, packing, rows, shortest, longest, rounds } = job;
  const maxPositionEmbeddings = longest;
  const model = createModel(makeDecoderConfig({ ...shape, maxPositionEmbeddings }), { seed: 0 });
  const config = SftConfig.parse({ batchSize: rows, maxSteps: rounds + 1, packing });
  const optimizer = new AdamW(decayGroups(model, 0));
  const examples = makeExamples(job, shape.vocabSize, { shortest, longest });
  const trainer = new SftTrainer({ model, optimizer, examples }, config);
  const rates: number[] = [];
  for (let round = 0; round <= rounds; round++) {
    const startedAt = performance.now();
    const { metrics } = await trainer.trainStep();
    const seconds = (performance.now() - startedAt) / 1000;
    if (round > 0) rates.push((metrics['tokens'] ?? NaN) / seconds);
  }
  return { 'tokens/s': rates };
}

/** Lengths whose logarithm is uniform: many short rows, few long ones, as in data sets of conversations. */
function makeExamples(
  { rows }: PackingJob,
  vocabSize: number,
  { shortest, longest }: { shortest: number; longest: number },
): SftExample[] {
  const random = new SeededRandom(1);
  return Array.from({ length: rows }, (_, line) => {
    const length = Math.round(shortest * (longest / shortest) ** random.nextFloat());
    return {
      inputIds: Array.from({ length }, () => random.nextInt(vocabSize)),
      completionStart: 1,
      completionMask: new Uint8Array(length).fill(1, 1),
      row: { values: {}, file: 'bench', line },
    };
  });
}
