/** Whether both sides of `generate` compute the same model: greedy tokens for the same weights and prompts. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sample } from '../src/generation/index.js';
import { createModel, makeDecoderConfig } from '../src/models/index.js';
import { runPython } from './processes.js';

const SHAPE = {
  vocabSize: 512,
  hiddenSize: 96,
  intermediateSize: 160,
  numLayers: 3,
  numHeads: 6,
  tieWordEmbeddings: true,
  rmsNormEps: 1e-5,
  ropeTheta: 10_000,
  initializerRange: 0.2, // far from uniform, so that greedy choices have no ties
} as const;
const PROMPT_TOKENS = 12;
const NEW_TOKENS = 32;

/**
 * Compares with heads that share keys and with heads that do not, one row and many.
 *
 * @returns per configuration, how many of its rows are equal token by token
 */
export async function checkSides(
  python: string,
): Promise<{ name: string; rows: number; equal: number }[]> {
  const results = [];
  for (const [numKeyValueHeads, rows] of [
    [6, 1],
    [2, 1],
    [2, 20],
  ] as const) {
    const shape = { ...SHAPE, numKeyValueHeads };
    const prompts = Array.from({ length: rows }, (_, row) =>
      Array.from({ length: PROMPT_TOKENS }, (_unused, column) => (row * 37 + column * 11) % 512),
    );
    const folder = mkdtempSync(join(tmpdir(), 'posttrain-bench-'));
    const model = createModel(makeDecoderConfig(shape), { seed: 3 }).freeze();
    try {
      await model.save(folder);
      const ours = await sample({
        model,
        promptIds: prompts,
        maxNewTokens: NEW_TOKENS,
        temperature: 0,
        eosTokenIds: [],
      });
      const argument = { folder, shape, prompts, newTokens: NEW_TOKENS };
      const theirs = await runPython<number[][]>(python, 'check.py', argument);
      const equal = ours.filter(
        ({ tokenIds }, row) => tokenIds.join() === theirs[row]?.join(),
      ).length;
      results.push({ name: `${numKeyValueHeads} of 6 heads with keys, ${rows} rows`, rows, equal });
    } finally {
      model.dispose();
      rmSync(folder, { recursive: true, force: true });
    }
  }
  return results;
}
