import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ROOT } from '../../test/root.js';
import { enableGrad, noGrad, tensor, tidy, type Dtype, type Tensor } from '../torch/index.js';
import {
  loadModel,
  loadScalarModel,
  loadStepModel,
  mergedParameters,
  Decoder,
  type LoadModelOptions,
} from './index.js';

const GOLDEN = join(ROOT, 'test/golden/adapters');
const names = readdirSync(GOLDEN).sort();

interface Expected {
  readonly inputIds: number[][];
  /** Every fourth logit, or all that a head reads. */
  readonly outputs: number[][][];
  readonly outputWeights: number[][][];
  /** The first two rows of some. */
  readonly gradients: Record<string, number[] | number[][]>;
  readonly squaredNorms: Record<string, number>;
}

const expectedOf = (name: string): Expected =>
  JSON.parse(readFileSync(join(GOLDEN, name, 'expected.json'), 'utf8')) as Expected;

interface Opened {
  readonly namedParameters: () => Map<string, Tensor>;
  readonly outputs: (inputIds: Tensor) => Tensor;
  readonly dispose: () => void;
}

async function open(name: string, options: LoadModelOptions = {}): Promise<Opened> {
  const folder = join(GOLDEN, name);
  const opened = <Model extends { namedParameters(): Map<string, Tensor>; dispose(): void }>(
    model: Model,
    outputs: (model: Model, inputIds: Tensor) => Tensor,
  ): Opened => ({
    namedParameters: () => model.namedParameters(),
    outputs: (inputIds) => outputs(model, inputIds),
    dispose: () => model.dispose(),
  });
  if (name === 'scalar')
    return opened(await loadScalarModel(folder, options), (model, inputIds) =>
      model.forward({ inputIds }).values.unsqueeze(-1),
    );
  if (name === 'steps')
    return opened(
      await loadStepModel(folder, options),
      (model, inputIds) => model.forward({ inputIds }).logits,
    );
  return opened(
    await loadModel(folder, options),
    (model, inputIds) => model.forward({ inputIds }).logits,
  );
}

const ids = (rows: readonly (readonly number[])[]): Tensor =>
  tensor(
    rows.map((row) => [...row]),
    { dtype: 'int64' },
  );

/** What the golden file keeps of the outputs. */
function kept(outputs: Tensor): number[][][] {
  const rows = outputs.toArray() as number[][][];
  return rows.map((row) =>
    row.map((values) => (values.length === 96 ? values.filter((_, at) => at % 4 === 0) : values)),
  );
}

describe('an adapter of PEFT', () => {
  test('cases of LoRA, rsLoRA, DoRA, saved layers and heads are there', () => {
    assert.deepEqual(names, [
      'dora',
      'dora-rslora-pattern',
      'head',
      'lora',
      'rslora',
      'scalar',
      'steps',
    ]);
  });

  for (const name of names) {
    test(`${name}: gives the same outputs here`, async () => {
      const model = await open(name);
      const { inputIds, outputs } = expectedOf(name);
      // The large factor of this one takes PEFT's own float32 outputs 2.5e-5 away from those in float64.
      const atol = name === 'rslora' ? 4e-5 : 1e-5;
      tidy(() =>
        expectClose(kept(noGrad(() => model.outputs(ids(inputIds)))), outputs, {
          atol,
          rtol: 1e-5,
        }),
      );
      model.dispose();
    });

    test(`${name}: has the same gradients here, in float64`, async () => {
      const dtype: Dtype = 'float64';
      const model = await open(name, { dtype });
      const { inputIds, outputWeights, gradients, squaredNorms } = expectedOf(name);
      tidy(() =>
        enableGrad(() =>
          model.outputs(ids(inputIds)).mul(tensor(outputWeights, { dtype })).sum().backward(),
        ),
      );
      const found = new Map<string, Tensor>();
      for (const [parameter, { grad }] of model.namedParameters())
        if (grad !== null) found.set(parameter, grad);
      assert.deepEqual([...found.keys()].sort(), Object.keys(squaredNorms).sort());
      const tolerance = { rtol: 2e-5, atol: 2e-5 };
      for (const [parameter, rows] of Object.entries(gradients)) {
        const all = found.get(parameter)?.toArray() as number[] | number[][];
        expectClose(all.slice(0, 2), rows, tolerance);
      }
      for (const [parameter, grad] of found)
        expectClose(grad.square().sum().item(), squaredNorms[parameter] ?? NaN, tolerance);
      model.dispose();
    });
  }

  for (const name of names.filter((one) => one !== 'scalar' && one !== 'steps')) {
    test(`${name}: folded into its base it is the same model`, async () => {
      const dtype: Dtype = 'float64';
      const model = await loadModel(join(GOLDEN, name), { dtype });
      const merged = new Decoder(model.config, mergedParameters(model, dtype));
      const inputIds = ids(expectedOf(name).inputIds);
      const logitsOf = (of: Decoder): Tensor => noGrad(() => of.forward({ inputIds }).logits);
      tidy(() => expectClose(logitsOf(merged), logitsOf(model), { atol: 1e-10, rtol: 1e-10 }));
      model.dispose();
      merged.dispose();
    });
  }
});
