/** The example of the pipeline: short reviews whose true reward is known, written as a user would bring them. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { IoError } from '../errors/index.js';
import { makeFolder } from '../hub/index.js';
import type { DecoderOptions } from '../models/index.js';
import { RunDirectory } from '../runs/index.js';
import { sentimentTask } from '../tasks/index.js';
import { writeStartingPoint } from './startingPoint.js';

/** A Llama-shaped decoder with 0.1 million parameters. Special tokens and vocabulary come from the tokenizer. */
export const RLHF_MODEL: Omit<DecoderOptions, 'vocabSize'> = {
  hiddenSize: 64,
  intermediateSize: 176,
  numLayers: 2,
  numHeads: 4,
  tieWordEmbeddings: true,
  maxPositionEmbeddings: 16,
  initializerRange: 0.05,
};

const TRUE_REWARD = `// The true reward of the example: what the annotator ranks by, and what nobody trains on.
export { sentimentReward as default } from 'posttrain/tasks';
`;

/** What the example is made with. */
export interface RlhfExampleOptions {
  /** The folder of the run; the example stands in `inputs` below it. */
  readonly out: string;
  readonly seed: number;
  /** Path of the settings that the example is run with. */
  readonly settings: string;
  /** Smaller ones for tests. */
  readonly model?: Omit<DecoderOptions, 'vocabSize'> | undefined;
}

/**
 * Writes model, demonstrations, prompts, the true reward and the settings that name them.
 *
 * @returns path of the settings
 * @throws IoError where `out` is something else than a new folder or one with `inputs` alone, or cannot be written
 */
export async function writeRlhfExample(options: RlhfExampleOptions): Promise<string> {
  const { out, seed, settings, model = RLHF_MODEL } = options;
  RunDirectory.assertFree(out);
  const folder = join(out, 'inputs');
  const path = join(folder, 'rlhf.yaml');
  try {
    makeFolder(folder);
    await writeStartingPoint(folder, sentimentTask({ seed }), { model, seed });
    writeFileSync(join(folder, 'true-reward.ts'), TRUE_REWARD);
    writeFileSync(path, readFileSync(settings));
  } catch (error) {
    throw new IoError(`Writing the example into ${folder}: ${String(error)}.`, { cause: error });
  }
  return path;
}
