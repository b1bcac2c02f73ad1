/** Twenty steps here against twenty steps of TRL 1.13, for every method of tools/interop/parity.py. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ScalarModel, type Decoder } from '../../src/models/index.js';
import { DpoConfig } from '../../src/config/index.js';
import { expectClose } from '../expect.js';
import { PARITY_METHODS, parityGolden, perReport, trainHere, valuesOf } from './parity.js';
import { languageReads, scoreReads, type LanguageReads, type ScoreReads } from './reads.js';
import { digestOf, startAdapter, startModel, startScalarModel } from './start.js';

function metric(reports: readonly Readonly<Record<string, number>>[], name: string): number[] {
  return reports.map((report) => report[name] ?? NaN);
}

function evenlySpaced(values: Float32Array, count: number): number[] {
  const stride = Math.floor(values.length / count);
  return Array.from({ length: count }, (_, at) => values[at * stride] ?? NaN);
}

/** Fails unless the model trained here says what TRL's says in transformers. */
async function expectReads(
  model: Decoder | ScalarModel,
  expected: LanguageReads | ScoreReads,
): Promise<void> {
  if ('scores' in expected) {
    assert.ok(model instanceof ScalarModel, 'scores come from a reward model');
    const { scores } = scoreReads(model, expected.rows);
    expectClose(scores, expected.scores, { rtol: 0, atol: 2e-5 });
  } else {
    assert.ok(!(model instanceof ScalarModel), 'text comes from a language model');
    const { greedy, logits } = await languageReads(model, expected.rows);
    assert.deepEqual(greedy, expected.greedy);
    expectClose(logits, expected.logits, { rtol: 0, atol: 2e-5 });
  }
}

describe('training parity with TRL', () => {
  for (const method of PARITY_METHODS) {
    test(`${method}: both begin with the same bits`, () => {
      const { shape, startSha256, settings } = parityGolden(method);
      const lora = DpoConfig.shape.lora.parse(settings['lora']);
      const languageModel = lora ? startAdapter(shape, lora) : startModel(shape);
      const model = method === 'reward' ? startScalarModel(shape) : languageModel;
      assert.equal(digestOf(model), startSha256);
    });

    test(`${method}: losses, norms of gradients and weights are TRL's after 20 steps`, async () => {
      const { golden, model, before, reports } = await trainHere(method);
      const count = reports.length;
      expectClose(metric(reports, 'loss'), perReport(golden.losses, count), {
        rtol: 1e-4,
        atol: 1e-6,
      });
      expectClose(metric(reports, 'gradNorm'), perReport(golden.gradNorms, count), { rtol: 1e-4 });

      const after = valuesOf(model);
      assert.deepEqual([...after.keys()].sort(), Object.keys(golden.parameters).sort());
      for (const [name, { change, sample }] of Object.entries(golden.parameters)) {
        const values = after.get(name) ?? new Float32Array();
        const start = before.get(name) ?? new Float32Array();
        expectClose(evenlySpaced(values, sample.length), sample, { rtol: 0, atol: 1e-6 });
        const moved = Math.hypot(...values.map((value, at) => value - (start[at] ?? NaN)));
        expectClose(moved, change, { rtol: 2e-4 });
      }
      await expectReads(model, golden.reads);
      model.dispose();
    });
  }
});
