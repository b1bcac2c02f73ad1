import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ROOT } from '../../test/root.js';
import { memory, tensor, tidy, type Dtype, type Tensor } from '../torch/index.js';
import { AdamW, decayGroups, type ParameterGroup } from './index.js';

type Name = 'weight' | 'bias' | 'late';
type Matrix = number[] | number[][];

interface Golden {
  start: Record<Name, Matrix>;
  rates: number[];
  steps: { gradients: Record<Name, Matrix | null>; parameters: Record<Name, Matrix> }[];
}

const golden = (
  JSON.parse(readFileSync(join(ROOT, 'test/golden/optim.json'), 'utf8')) as {
    adamW: Record<'float64' | 'float32', Golden>;
  }
).adamW;
const names: readonly Name[] = ['weight', 'bias', 'late'];

type Parameters = Record<Name, Tensor>;

function parametersOf(start: Record<Name, Matrix>, dtype: Dtype): Parameters {
  const make = (name: Name): Tensor => tensor(start[name], { dtype, requiresGrad: true });
  return { weight: make('weight'), bias: make('bias'), late: make('late') };
}

function groupsOf({ weight, bias, late }: Parameters): ParameterGroup[] {
  return [
    {
      params: new Map([
        ['weight', weight],
        ['late', late],
      ]),
      weightDecay: 0.1,
    },
    { params: new Map([['bias', bias]]), lrScale: 0.5 },
  ];
}

function setGradients(parameters: Parameters, gradients: Record<Name, Matrix | null>): void {
  for (const name of names) {
    const gradient = gradients[name];
    parameters[name].grad =
      gradient === null ? null : tensor(gradient, { dtype: parameters[name].dtype });
  }
}

const optimizerOf = (parameters: Parameters, fused = true): AdamW =>
  new AdamW(groupsOf(parameters), { beta1: 0.9, beta2: 0.95, fused });

describe('AdamW', () => {
  for (const [dtype, rtol] of [
    ['float64', 1e-12],
    ['float32', 1e-6],
  ] as const)
    for (const fused of [true, false])
      test(`five steps equal torch.optim.AdamW in ${dtype}, ${fused ? 'fused' : 'foreach'}`, () => {
        const { start, rates, steps } = golden[dtype];
        const parameters = parametersOf(start, dtype);
        const optimizer = optimizerOf(parameters, fused);
        steps.forEach((step, index) => {
          setGradients(parameters, step.gradients);
          optimizer.step(rates[index] ?? 0);
          for (const name of names)
            expectClose(parameters[name], step.parameters[name], { rtol, atol: rtol });
        });
        assert.equal(optimizer.stepCount, 5);
      });
  test('two steps, a saved state and three more equal five', () => {
    const { start, rates, steps } = golden.float32;
    const run = (from: number, to: number, parameters: Parameters, optimizer: AdamW): void => {
      for (let index = from; index < to; index++) {
        setGradients(
          parameters,
          steps[index]?.gradients ?? { weight: null, bias: null, late: null },
        );
        optimizer.step(rates[index] ?? 0);
      }
    };
    const whole = parametersOf(start, 'float32');
    run(0, 5, whole, optimizerOf(whole));
    const parts = parametersOf(start, 'float32');
    const first = optimizerOf(parts);
    run(0, 3, parts, first);
    const second = optimizerOf(parts);
    second.loadState(first.stateTensors());
    run(3, 5, parts, second);
    for (const name of names) assert.ok(parts[name].equal(whole[name]), name);
    assert.deepEqual([...second.stateTensors().keys()].sort(), [
      'bias.expAvg',
      'bias.expAvgSq',
      'bias.step',
      'late.expAvg',
      'late.expAvgSq',
      'late.step',
      'weight.expAvg',
      'weight.expAvgSq',
      'weight.step',
    ]);
    assert.equal(second.stateTensors().get('late.step')?.item(), 3);
  });
  test('a state that does not fit changes nothing', () => {
    const parameters = parametersOf(golden.float32.start, 'float32');
    const optimizer = optimizerOf(parameters);
    const state = optimizer.stateTensors();
    state.set('weight.expAvg', tensor([[1]]));
    assert.throws(() => optimizer.loadState(state), {
      code: 'E_CHECKPOINT',
      message: "AdamW: expected weight.expAvg [3, 4] in the optimizer's state, received [1, 1].",
    });
    state.delete('weight.expAvg');
    assert.throws(() => optimizer.loadState(state), {
      message: "AdamW: expected weight.expAvg [3, 4] in the optimizer's state, received none.",
    });
    assert.equal(optimizer.stepCount, 0);
  });
  test('a parameter without a gradient is left alone, decay included', () => {
    const parameters = parametersOf(golden.float32.start, 'float32');
    const optimizer = optimizerOf(parameters);
    optimizer.step(0.1);
    expectClose(parameters.weight, tensor(golden.float32.start.weight), { rtol: 0, atol: 0 });
  });
  test('zeroGrad drops gradients', () => {
    const parameters = parametersOf(golden.float32.start, 'float32');
    setGradients(
      parameters,
      golden.float32.steps[4]?.gradients ?? { weight: null, bias: null, late: null },
    );
    assert.ok(parameters.weight.grad);
    optimizerOf(parameters).zeroGrad();
    assert.equal(parameters.weight.grad, null);
  });
  test('steps leave no tensor behind, and dispose frees the state', () => {
    const parameters = parametersOf(golden.float32.start, 'float32');
    const before = memory().liveTensors;
    const optimizer = optimizerOf(parameters);
    const withState = memory().liveTensors;
    assert.equal(withState, before + 6);
    for (let step = 0; step < 50; step++) {
      tidy(() => parameters.weight.sum().backward());
      optimizer.step(0.01);
      optimizer.zeroGrad();
    }
    assert.equal(memory().liveTensors, withState);
    optimizer.dispose();
    assert.equal(memory().liveTensors, before);
  });
  test('refuses settings out of range and a name given twice', () => {
    const parameters = parametersOf(golden.float32.start, 'float32');
    const groups = groupsOf(parameters);
    assert.throws(() => new AdamW(groups, { beta1: 1 }), {
      message: 'AdamW: expected beta1 to be from 0 to below 1, received 1.',
    });
    assert.throws(() => new AdamW([...groups, ...groups]), {
      message: 'AdamW: expected every name once, received weight twice.',
    });
    assert.throws(() => new AdamW(groups).step(NaN), {
      message: 'AdamW: expected learningRate to be at least 0, received NaN.',
    });
  });
});

describe('decayGroups', () => {
  test('matrices decay, vectors do not, frozen parameters are in neither group', () => {
    const parameter = (shape: number[], requiresGrad = true): Tensor =>
      tensor(new Float32Array(shape.reduce((a, b) => a * b)), { shape, requiresGrad });
    const all = new Map([
      ['embed', parameter([4, 2])],
      ['norm', parameter([2])],
      ['linear', parameter([2, 2])],
      ['bias', parameter([2])],
      ['frozen', parameter([2, 2], false)],
    ]);
    const groups = decayGroups({ namedParameters: () => all }, 0.1);
    assert.deepEqual(
      groups.map(({ params, weightDecay }) => [[...params.keys()], weightDecay]),
      [
        [['embed', 'linear'], 0.1],
        [['norm', 'bias'], 0],
      ],
    );
  });
});
