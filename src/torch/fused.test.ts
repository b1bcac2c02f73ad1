import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  CLOSE,
  expectSameGradients,
  TESTED_DTYPES,
  valuesAndGradients,
} from '../../test/gradients.js';
import {
  autocast,
  gatedActivation,
  gatedMlp,
  Generator,
  getNumThreads,
  grad,
  hostMemory,
  noGrad,
  randn,
  releaseHostMemory,
  rotateHalf,
  scoreGradient_,
  scoreTokens,
  setNumThreads,
  stack,
  tensor,
  tidy,
  zeros,
  type GateActivation,
  type Tensor,
} from './index.js';

const generator = new Generator(3);
const random = (...shape: number[]): Tensor => randn(shape, { generator });
const ACTIVATIONS: readonly GateActivation[] = ['silu', 'geluTanh'];
function act(x: Tensor, activation: GateActivation): Tensor {
  return activation === 'silu' ? x.silu() : x.gelu({ approximate: 'tanh' });
}

describe('gatedActivation', () => {
  for (const activation of ACTIVATIONS)
    for (const dtype of TESTED_DTYPES)
      for (const width of [1, 16, 37])
        test(`${activation} of ${dtype}, ${width} wide, has the values and gradients of the plain one`, () => {
          const [gate, up] = [random(2, 3, width).mul(3), random(2, 3, width)];
          expectSameGradients(
            [gate, up],
            dtype,
            (first, second) => gatedActivation(first, second, activation),
            (first, second) => act(first, activation).mul(second),
          );
          expectSameGradients(
            [random(5, 2 * width)],
            dtype,
            (both) => gatedActivation(both, null, activation),
            (both) => {
              const [first, second] = both.chunk(2, -1) as [Tensor, Tensor];
              return act(first, activation).mul(second);
            },
          );
        });

  test('takes halves, columns and none', () => {
    const plain = (gate: Tensor, up: Tensor): Tensor => gate.silu().mul(up);
    const views: ((tensor: Tensor) => [Tensor, Tensor])[] = [
      (all) => all.chunk(2, -1) as [Tensor, Tensor],
      (all) => all.transpose(0, 1).chunk(2, 0) as [Tensor, Tensor],
      (all) => all.unsqueeze(1).expand([-1, 3, -1]).chunk(2, -1) as [Tensor, Tensor],
      (all) => all.narrow(0, 0, 0).chunk(2, -1) as [Tensor, Tensor],
    ];
    for (const view of views)
      expectSameGradients(
        [random(6, 40)],
        'float32',
        (all) => gatedActivation(...view(all), 'silu'),
        (all) => plain(...view(all)),
      );
  });

  test('agrees where floats end: large, infinite and not a number', () => {
    tidy(() => {
      const values = [-200, -89, -1e-30, 0, 1e-30, 89, 200, Infinity, NaN];
      const gate = tensor(Array.from({ length: 27 }, (_, at) => values[at % 9] as number));
      const up = tensor(Array<number>(27).fill(1));
      const found = gatedActivation(gate, up, 'silu').toArray() as number[];
      const expected = gate.silu().toArray() as number[];
      found.forEach((value, at) => {
        const wanted = expected[at] as number;
        assert.ok(
          Object.is(value, wanted) || Math.abs(value - wanted) <= 1e-6 * Math.abs(wanted) + 1e-32,
        );
      });
    });
  });

  test('can be differentiated twice', () => {
    for (const activation of ACTIVATIONS)
      expectSameGradients(
        [random(3, 20), random(3, 20)],
        'float32',
        (gate, up) => {
          const [first] = grad([gatedActivation(gate, up, activation).square().sum()], [gate], {
            createGraph: true,
          });
          return first as Tensor;
        },
        (gate, up) => {
          const y = act(gate, activation).mul(up);
          return grad([y.square().sum()], [gate], { createGraph: true })[0] as Tensor;
        },
      );
  });

  test('refuses gate and up of different shapes', () => {
    tidy(() => {
      assert.throws(() => gatedActivation(random(2, 3), random(2, 4), 'silu'), /of one shape/);
      assert.throws(() => gatedActivation(random(2, 3), null, 'silu'), /side by side/);
    });
  });
});

describe('gatedMlp', () => {
  const layer =
    (activation: GateActivation) =>
    (x: Tensor, gate: Tensor, up: Tensor, down: Tensor): Tensor =>
      gatedMlp(x, { gate, up, down }, activation);
  const plain =
    (activation: GateActivation) =>
    (x: Tensor, gate: Tensor, up: Tensor, down: Tensor): Tensor =>
      act(x.linear(gate), activation).mul(x.linear(up)).linear(down);
  const inputs = (): Tensor[] => [
    random(2, 3, 8),
    random(20, 8).div(3),
    random(20, 8).div(3),
    random(8, 20).div(4),
  ];

  for (const activation of ACTIVATIONS)
    for (const dtype of ['float64', 'float32'] as const)
      test(`${activation} of ${dtype} has the values and gradients of the plain one`, () => {
        expectSameGradients(inputs(), dtype, layer(activation), plain(activation));
      });

  test('of bfloat16 is as close to float64 as the plain one', () => {
    tidy(() => {
      const rounded = inputs().map((input) => input.to('bfloat16'));
      const exact = valuesAndGradients(rounded, 'float64', plain('silu'));
      const distances = [layer('silu'), plain('silu')].map((compute) =>
        valuesAndGradients(rounded, 'bfloat16', compute).map((found, index) =>
          found
            .to('float64')
            .sub(exact[index] as Tensor)
            .norm()
            .item(),
        ),
      );
      const [fused = [], other = []] = distances;
      fused.forEach((distance, index) => {
        assert.ok(distance <= 1.5 * (other[index] ?? 0) + 1e-3, `${index}: ${distance}`);
      });
    });
  });

  test('agrees with finite differences', () => {
    tidy(() => {
      const leaves = inputs().map((input) => input.to('float64').requiresGrad_());
      const value = (): Tensor =>
        layer('geluTanh')(...(leaves as [Tensor, Tensor, Tensor, Tensor]))
          .sin()
          .sum();
      value().backward();
      for (const leaf of leaves) {
        const place = leaf.detach().view([-1]).narrow(0, 7, 1);
        const at = (step: number): number =>
          noGrad(() => {
            place.add_(step);
            const found = value().item();
            place.add_(-step);
            return found;
          });
        const found = leaf.grad?.flatten().narrow(0, 7, 1).item() ?? NaN;
        expectClose(tensor((at(1e-6) - at(-1e-6)) / 2e-6, { dtype: 'float64' }), found, {
          rtol: 1e-6,
          atol: 1e-8,
        });
      }
    });
  });

  test('gives frozen weights no gradient, and x one', () => {
    tidy(() => {
      const [x, gate, up, down] = inputs() as [Tensor, Tensor, Tensor, Tensor];
      for (const [index, leaf] of [x, gate, up, down].entries()) {
        leaf.requiresGrad_();
        gatedMlp(x, { gate, up, down }, 'silu').sum().backward();
        [x, gate, up, down].forEach((other, at) => assert.equal(other.grad !== null, at === index));
        leaf.grad = null;
        leaf.requiresGrad = false;
      }
      assert.equal(gatedMlp(x, { gate, up, down }, 'silu').requiresGrad, false);
    });
  });

  test('refuses a second derivative', () => {
    tidy(() => {
      const [x, gate, up, down] = inputs() as [Tensor, Tensor, Tensor, Tensor];
      x.requiresGrad_();
      const y = gatedMlp(x, { gate, up, down }, 'silu').sum();
      assert.throws(() => grad([y], [x], { createGraph: true }), /no second derivative/);
    });
  });

  test('under autocast multiplies in bfloat16, with gradients in float32', () => {
    tidy(() => {
      const options = { device: 'cpu', dtype: 'bfloat16' } as const;
      const compute =
        (inner: (...all: [Tensor, Tensor, Tensor, Tensor]) => Tensor) =>
        (...all: Tensor[]): Tensor =>
          autocast(options, () => inner(...(all as [Tensor, Tensor, Tensor, Tensor])));
      const all = inputs();
      const found = valuesAndGradients(all, 'float32', compute(layer('silu')));
      const expected = valuesAndGradients(all, 'float32', compute(plain('silu')));
      assert.equal(found[0]?.dtype, 'bfloat16');
      found.forEach((tensor, index) => {
        const other = expected[index] as Tensor;
        assert.ok(index === 0 || tensor.dtype === 'float32');
        const distance = tensor.to('float32').sub(other.to('float32')).norm().item();
        assert.ok(distance < 0.01 * other.to('float32').norm().item(), `${index}: ${distance}`);
      });
    });
  });
});

describe('rotateHalf', () => {
  const plain = (x: Tensor, cos: Tensor, sin: Tensor): Tensor => {
    const [rotary, width] = [cos.size(-1), x.size(-1)];
    const turning = x.narrow(-1, 0, rotary);
    const [first, second] = turning.chunk(2, -1) as [Tensor, Tensor];
    const turned = tidyCat([second.neg(), first]);
    const rotated = turning.mul(cos).add(turned.mul(sin));
    return tidyCat([rotated, x.narrow(-1, rotary, width - rotary)]);
  };
  const tidyCat = (parts: Tensor[]): Tensor =>
    stack(
      parts.flatMap((part) => part.unbind(-1)),
      -1,
    );
  const angles = (...shape: number[]): [Tensor, Tensor] => {
    const half = random(...shape);
    const both = tidyCat([half, half]);
    return [both.cos(), both.sin()];
  };

  for (const dtype of TESTED_DTYPES)
    for (const [rotary, width] of [
      [64, 64],
      [6, 6],
      [40, 48],
    ] as const)
      test(`${rotary} of ${width} numbers of ${dtype}`, () => {
        tidy(() => {
          for (const shape of [
            [5, 1],
            [1, 5, 1],
            [2, 5, 1],
          ]) {
            const [cos, sin] = angles(...shape, rotary / 2).map((each) => each.to(dtype)) as [
              Tensor,
              Tensor,
            ];
            expectSameGradients(
              [random(2, 5, 3, width)],
              dtype,
              (x) => rotateHalf(x, cos, sin),
              (x) => plain(x, cos.to('float64'), sin.to('float64')),
            );
          }
        });
      });

  for (const rotary of [6, 64])
    test(`each half of ${rotary} numbers by its own angles`, () => {
      tidy(() => {
        const [cos, sin] = [random(5, 1, rotary), random(5, 1, rotary)];
        expectSameGradients(
          [random(2, 5, 3, rotary)],
          'float32',
          (x) => rotateHalf(x, cos, sin),
          (x) => plain(x, cos.to('float64'), sin.to('float64')),
        );
      });
    });

  test('of a transposed tensor, and of no tokens', () => {
    tidy(() => {
      const [cos, sin] = angles(5, 1, 8);
      const check = (view: (x: Tensor) => Tensor): void =>
        expectSameGradients(
          [random(3, 5, 16)],
          'float32',
          (x) => rotateHalf(view(x), cos, sin),
          (x) => plain(view(x), cos.to('float64'), sin.to('float64')),
        );
      check((x) => x.transpose(0, 1));
      const none = rotateHalf(random(0, 3, 16), zeros([0, 1, 16]), zeros([0, 1, 16]));
      assert.deepEqual(none.shape, [0, 3, 16]);
    });
  });

  test('can be differentiated twice, and turns back', () => {
    tidy(() => {
      const [cos, sin] = angles(5, 1, 8);
      const x = random(5, 3, 16).requiresGrad_();
      const [first] = grad([rotateHalf(x, cos, sin).pow(3).sum()], [x], { createGraph: true });
      const [second] = grad([(first as Tensor).sum()], [x]);
      const wide = x.detach().to('float64').requiresGrad_();
      const y = plain(wide, cos.to('float64'), sin.to('float64'));
      const [once] = grad([y.pow(3).sum()], [wide], { createGraph: true });
      const [twice] = grad([(once as Tensor).sum()], [wide]);
      expectClose((second as Tensor).to('float64'), (twice as Tensor).toArray(), {
        rtol: 1e-4,
        atol: 1e-4,
      });
      expectClose(rotateHalf(rotateHalf(x.detach(), cos, sin), cos, sin.neg()), x.toArray(), {
        rtol: 1e-5,
        atol: 1e-6,
      });
    });
  });

  test('of what autocast computed stays bfloat16, rounded once', () => {
    tidy(() => {
      const [cos, sin] = angles(5, 1, 8);
      const x = random(5, 3, 16).to('bfloat16');
      const found = autocast({ device: 'cpu', dtype: 'bfloat16' }, () => rotateHalf(x, cos, sin));
      assert.equal(found.dtype, 'bfloat16');
      const expected = plain(x.to('float64'), cos.to('float64'), sin.to('float64'));
      expectClose(found.to('float64'), expected.toArray(), { rtol: 2 ** -8, atol: 1e-6 });
    });
  });
});

describe('scoreTokens and scoreGradient_', () => {
  const targets = [3, 0, 36, 7];
  const ids = (): Tensor => tensor(targets, { dtype: 'int64' });
  const [rows, vocabulary] = [4, 137];

  function byHand(logits: Tensor, temperature: number): { logprobs: Tensor; entropies: Tensor } {
    const all = logits.div(temperature).logSoftmax(-1);
    const logprobs = all.gather(1, ids().unsqueeze(1)).squeeze(1);
    const finite = all.maskedFill(all.isinf(), 0);
    return {
      logprobs,
      entropies: finite.exp().mul(finite).mul(all.isinf().logicalNot()).sum(-1).neg(),
    };
  }

  for (const dtype of TESTED_DTYPES)
    for (const temperature of [1, 0.7])
      for (const support of ['all', 'some'] as const)
        test(`${dtype}, τ = ${temperature}, ${support} of the vocabulary`, () => {
          tidy(() => {
            const full = random(rows, vocabulary).mul(4).to(dtype);
            const hidden = random(rows, vocabulary)
              .gt(1)
              .scatter(1, ids().unsqueeze(1), zeros([rows, 1], { dtype: 'bool' }));
            const logits = support === 'all' ? full : full.maskedFill(hidden, -Infinity);
            const scoreDtype = dtype === 'float64' ? dtype : 'float32';
            const [first, second] = [random(rows).to(scoreDtype), random(rows).to(scoreDtype)];
            for (const [ofLogprobs, ofEntropies] of [
              [first, second],
              [first, null],
              [null, second],
            ] as const) {
              const wide = logits.to('float64').clone().requiresGrad_();
              const expected = byHand(wide, temperature);
              stack([
                ...(ofLogprobs ? [expected.logprobs.mul(ofLogprobs.to('float64')).sum()] : []),
                ...(ofEntropies ? [expected.entropies.mul(ofEntropies.to('float64')).sum()] : []),
              ])
                .sum()
                .backward();
              const own = logits.detach().clone();
              const scores = scoreTokens(own, ids(), { temperature, withEntropy: true });
              const close = dtype === 'float64' ? CLOSE.float64 : { rtol: 1e-5, atol: 2e-6 };
              const compare = (found: Tensor, wanted: Tensor | null, bounds = close): void =>
                expectClose(found.to('float64'), wanted?.toArray() ?? NaN, bounds);
              assert.equal(scores.logprobs.dtype, scoreDtype);
              compare(scores.logprobs, expected.logprobs);
              compare(scores.entropies ?? own, expected.entropies);
              const plain = scoreTokens(own, ids(), { temperature, withEntropy: false });
              assert.equal(plain.entropies, null);
              assert.ok(plain.logprobs.equal(scores.logprobs));
              scoreGradient_(own, { targets: ids(), temperature, scores, ofLogprobs, ofEntropies });
              // Rounded once: at the target too, where two parts are added.
              compare(own, wide.grad, dtype === 'bfloat16' ? { rtol: 2 ** -8, atol: 2e-6 } : close);
            }
          });
        });

  test('by hand: a target that is nearly certain has a gradient that is rounded once', () => {
    tidy(() => {
      // 1 − p = 1/(1 + e⁶) = 0.0024726: −p is −0.99609375 in bfloat16, from which it cannot be had.
      const logits = tensor([[6, 0]], { dtype: 'bfloat16' });
      const targets = tensor([0], { dtype: 'int64' });
      const scores = scoreTokens(logits, targets, { temperature: 1, withEntropy: false });
      const settings = { targets, temperature: 1, scores, ofEntropies: null };
      scoreGradient_(logits, { ...settings, ofLogprobs: tensor([1]) });
      const rest = 1 / (1 + Math.exp(6));
      expectClose(logits.to('float32'), [[rest, -rest]], { rtol: 2 ** -8 });
    });
  });

  for (const dtype of ['float32', 'bfloat16'] as const)
    for (const width of [3, 64, 65])
      test(`the largest of ${width} logits of ${dtype} may be the last, and large`, () => {
        tidy(() => {
          const logits = zeros([1, width], { dtype });
          logits.select(1, width - 1).fill_(200);
          const targets = tensor([width - 1], { dtype: 'int64' });
          const scores = scoreTokens(logits, targets, { temperature: 1, withEntropy: true });
          expectClose(scores.logprobs, [0]);
          expectClose(scores.entropies ?? logits, [0]);
        });
      });

  test('logits of 16 bits that no kernel knows are scored in float32 too', () => {
    tidy(() => {
      const logits = random(rows, vocabulary);
      for (const narrow of [
        logits.to('float16'),
        logits.to('bfloat16').transpose(0, 1).contiguous().transpose(0, 1),
      ]) {
        const wide = byHand(narrow.to('float64'), 0.7);
        const scores = scoreTokens(narrow, ids(), { temperature: 0.7, withEntropy: true });
        assert.equal(scores.logprobs.dtype, 'float32');
        expectClose(scores.logprobs.to('float64'), wide.logprobs, { rtol: 1e-5, atol: 2e-6 });
        expectClose(scores.entropies?.to('float64') ?? NaN, wide.entropies, { rtol: 1e-5 });
      }
    });
  });

  test('no second matrix stands beside logits of bfloat16', () => {
    tidy(() => {
      const logits = random(256, 4096).to('bfloat16');
      const targets = zeros([256], { dtype: 'int64' });
      releaseHostMemory();
      const before = hostMemory().bytesInUse;
      const scores = scoreTokens(logits, targets, { temperature: 0.7, withEntropy: true });
      const settings = { targets, temperature: 0.7, scores };
      const given = { ofLogprobs: scores.logprobs, ofEntropies: scores.entropies };
      scoreGradient_(logits, { ...settings, ...given });
      assert.ok(hostMemory().mostBytesInUse - before < logits.numel);
    });
  });

  test('a row without a gradient becomes 0, whatever it holds', () => {
    for (const dtype of TESTED_DTYPES)
      tidy(() => {
        const logits = random(rows, vocabulary).to(dtype);
        logits.select(0, 1).fill_(NaN);
        const scores = scoreTokens(logits, ids(), { temperature: 1, withEntropy: false });
        assert.deepEqual(scores.logprobs.isnan().toArray(), [0, 1, 0, 0]);
        scoreGradient_(logits, {
          ...{ targets: ids(), temperature: 1, scores, ofEntropies: null },
          ofLogprobs: tensor([1, 0, 1, 0], { dtype: scores.logprobs.dtype }),
        });
        assert.ok(logits.isfinite().all().item());
        assert.equal(logits.select(0, 1).abs().sum().item(), 0);
      });
  });

  test('large logits neither overflow nor vanish', () => {
    tidy(() => {
      const logits = zeros([2, 70]).add(-1e4);
      logits.select(1, 5).fill_(1e4);
      const scores = scoreTokens(logits, tensor([5, 6], { dtype: 'int64' }), {
        ...{ temperature: 1, withEntropy: true },
      });
      expectClose(scores.logprobs, [0, -2e4], { rtol: 1e-6 });
      expectClose(scores.entropies ?? logits, [0, 0], { atol: 1e-6, rtol: 0 });
    });
  });

  test('gives the same on one thread as on several', () => {
    const threads = getNumThreads();
    tidy(() => {
      const logits = random(64, 3000);
      const own = tensor(
        Array.from({ length: 64 }, (_, at) => at * 40),
        { dtype: 'int64' },
      );
      const all = (): unknown[] => {
        const copy = logits.clone();
        const scores = scoreTokens(copy, own, { temperature: 0.9, withEntropy: true });
        const { logprobs, entropies } = scores;
        scoreGradient_(copy, {
          ...{ targets: own, temperature: 0.9, scores },
          ...{ ofLogprobs: logprobs, ofEntropies: entropies },
        });
        return [logprobs, entropies ?? copy, copy].map((each) => each.toArray());
      };
      const several = all();
      setNumThreads(1);
      try {
        assert.deepEqual(all(), several);
      } finally {
        setNumThreads(threads);
      }
    });
  });

  test('refuse targets beyond the vocabulary, a temperature of 0, and to be recorded', () => {
    tidy(() => {
      const logits = random(2, 5);
      const score = (target: number, temperature: number): unknown =>
        scoreTokens(logits, tensor([0, target], { dtype: 'int64' }), {
          temperature,
          withEntropy: false,
        });
      for (const target of [5, -1]) assert.throws(() => score(target, 1), /targets from 0 to 4/);
      assert.throws(() => score(1, 0), /temperature above 0/);
      logits.requiresGrad = true;
      assert.throws(() => score(1, 1), /no gradient/);
      noGrad(() => score(1, 1));
    });
  });

  test('what autograd had kept of overwritten logits is refused', () => {
    tidy(() => {
      const leaf = random(2, 5).requiresGrad_();
      const logits = leaf.exp();
      const targets = tensor([1, 2], { dtype: 'int64' });
      const own = logits.detach();
      const scores = scoreTokens(own, targets, { temperature: 1, withEntropy: false });
      scoreGradient_(own, {
        ...{ targets, temperature: 1, scores, ofEntropies: null },
        ofLogprobs: scores.logprobs,
      });
      assert.throws(() => logits.sum().backward(), /modified by an inplace operation/);
    });
  });
});
