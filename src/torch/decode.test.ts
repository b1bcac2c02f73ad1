import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  cat,
  decodeAttention,
  decodeMlp,
  drawRows,
  Generator,
  getNumThreads,
  noGrad,
  packLinearWeight,
  randn,
  setNumThreads,
  tensor,
  tidy,
  zeros,
  type AttentionWeights,
  type DecodeNorms,
  type DecodePlace,
  type Dtype,
  type FrozenWeight,
  type MlpWeights,
  type Tensor,
} from './index.js';

const generator = new Generator(4);
const random = (...shape: number[]): Tensor => randn(shape, { generator });

/** What the kernels compute, in float64 from the same numbers. */
const wide = (x: Tensor): Tensor => x.to('float64');
function normalised(x: Tensor, weight: Tensor, eps: number): Tensor {
  return x.mul(x.square().mean(-1, { keepDim: true }).add(eps).rsqrt()).mul(wide(weight));
}
const product = (x: Tensor, { weight, bias }: FrozenWeight): Tensor =>
  x.linear(wide(weight), bias && wide(bias));

interface Sizes {
  readonly rows: number;
  readonly width: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly rotary: number;
}

interface Case extends Sizes {
  readonly name: string;
  readonly norms?: boolean;
  readonly biases?: boolean;
  readonly masked?: boolean;
  readonly first?: number;
  readonly softcap?: number;
  readonly ownTurns?: boolean;
}

const COLUMN = 18;
const CAPACITY = 23;

function attentionCase(c: Case): { hidden: Tensor; weights: AttentionWeights; place: DecodePlace } {
  const { rows, width, heads, kvHeads, headDim, rotary } = c;
  const bias = (count: number): Tensor | null => (c.biases === true ? random(count) : null);
  const all = (heads + 2 * kvHeads) * headDim;
  const norm = (count: number): Tensor | null => (c.norms === true ? random(count) : null);
  const hiddenMask = zeros([rows, CAPACITY]);
  hiddenMask.narrow(1, 0, 3).copy_(tensor([[-Infinity]]));
  return {
    hidden: random(rows, width),
    weights: {
      norms: { input: random(width), output: norm(width), eps: 1e-3, roundsLast: false },
      queryNorm: norm(headDim),
      keyNorm: norm(headDim),
      queryKeyValue: { weight: random(all, width).mul(0.3), bias: bias(all) },
      output: { weight: random(width, heads * headDim), bias: bias(width) },
      scale: 0.4,
      softcap: c.softcap ?? null,
    },
    place: {
      shared: null,
      turns: rotary === 0 ? null : random(c.ownTurns === true ? rows : 1, rotary),
      keys: random(rows, kvHeads, CAPACITY, headDim),
      values: random(rows, kvHeads, CAPACITY, headDim),
      mask: c.masked === true ? hiddenMask : null,
      column: COLUMN,
      first: c.first ?? 0,
    },
  };
}

/** Without kernels, and with caches of its own. */
function plainAttention(
  c: Case,
  hidden: Tensor,
  weights: AttentionWeights,
  place: DecodePlace,
): { hidden: Tensor; key: Tensor; value: Tensor } {
  const { rows, heads, kvHeads, headDim, rotary } = c;
  const { norms, queryNorm, keyNorm, softcap, scale } = weights;
  const all = product(normalised(wide(hidden), norms.input, norms.eps), weights.queryKeyValue);
  const split = all.view([rows, -1, headDim]);
  const placed = (x: Tensor, norm: Tensor | null): Tensor => {
    const own = norm === null ? x : normalised(x, norm, norms.eps);
    if (place.turns === null) return own;
    const turns = wide(place.turns).view([-1, 1, rotary / 2, 2]);
    const pairs = own.narrow(2, 0, rotary).reshape([rows, -1, rotary / 2, 2]);
    const [a, b] = [pairs.narrow(3, 0, 1), pairs.narrow(3, 1, 1)];
    const [cos, sin] = [turns.narrow(3, 0, 1), turns.narrow(3, 1, 1)];
    const turned = cat([a.mul(cos).sub(b.mul(sin)), a.mul(sin).add(b.mul(cos))], 3);
    const rest = own.narrow(2, rotary, headDim - rotary);
    return cat([turned.view([rows, -1, rotary]), rest], 2);
  };
  const query = placed(split.narrow(1, 0, heads), queryNorm);
  const key = placed(split.narrow(1, heads, kvHeads), keyNorm);
  const value = split.narrow(1, heads + kvHeads, kvHeads);
  const { first, column } = place;
  const seen = (cache: Tensor, now: Tensor): Tensor =>
    cat([wide(cache).narrow(2, first, column - first), now.unsqueeze(2)], 2).repeatInterleave(
      heads / kvHeads,
      1,
    );
  let scores = seen(place.keys, key).matmul(query.unsqueeze(3)).mul(scale); // [B, H, L, 1]
  if (softcap !== null) scores = scores.div(softcap).tanh().mul(softcap);
  if (place.mask)
    scores = scores.add(
      wide(place.mask)
        .narrow(1, first, column + 1 - first)
        .view([rows, 1, -1, 1]),
    );
  const mixed = scores.softmax(2).mul(seen(place.values, value)).sum(2).view([rows, -1]);
  const output = product(mixed, weights.output);
  const change = norms.output === null ? output : normalised(output, norms.output, norms.eps);
  return { hidden: wide(hidden).add(change), key, value };
}

const LLAMA: Sizes = { rows: 1, width: 32, heads: 4, kvHeads: 2, headDim: 16, rotary: 16 };

describe('decodeAttention', () => {
  const cases: Case[] = [
    { name: 'one row', ...LLAMA },
    {
      name: 'four rows, each at a place of its own',
      ...LLAMA,
      rows: 4,
      ownTurns: true,
      masked: true,
    },
    { name: 'nine rows: products of many rows', ...LLAMA, rows: 9, masked: true },
    { name: 'a window', ...LLAMA, rows: 2, first: 7, masked: true },
    {
      name: 'heads that are normalised, biases, normalised output',
      ...LLAMA,
      rows: 3,
      norms: true,
      biases: true,
    },
    { name: 'capped scores', ...LLAMA, softcap: 1.5 },
    {
      name: 'sizes that fill no register',
      rows: 2,
      width: 13,
      heads: 6,
      kvHeads: 2,
      headDim: 10,
      rotary: 6,
    },
    { name: 'a head that turns in part, beyond a register', ...LLAMA, headDim: 40, rotary: 36 },
    { name: 'nothing turns', ...LLAMA, rotary: 0 },
  ];
  for (const c of cases)
    test(`${c.name}: as in float64, within 1e-5, and the caches hold key and value`, () => {
      noGrad(() =>
        tidy(() => {
          const { hidden, weights, place } = attentionCase(c);
          const expected = plainAttention(c, hidden, weights, place);
          const before = place.keys.clone();
          const found = decodeAttention(hidden, weights, place);
          expectClose(found, expected.hidden, { rtol: 1e-5, atol: 3e-5 });
          const close = { rtol: 1e-5, atol: 1e-5 };
          expectClose(place.keys.select(2, COLUMN), expected.key, close);
          expectClose(place.values.select(2, COLUMN), expected.value, close);
          expectClose(place.keys.narrow(2, 0, COLUMN), before.narrow(2, 0, COLUMN), {
            rtol: 0,
            atol: 0,
          });
        }),
      );
    });

  test('a packed weight gives what the plain one does', () => {
    noGrad(() =>
      tidy(() => {
        const c: Case = { name: '', ...LLAMA, rows: 9 };
        const { hidden, weights, place } = attentionCase(c);
        const plain = decodeAttention(hidden, weights, place);
        const packed = ({ weight, bias }: FrozenWeight): FrozenWeight => ({
          weight: packLinearWeight(weight, 64),
          bias,
        });
        const { queryKeyValue, output } = weights;
        const forms = { queryKeyValue: packed(queryKeyValue), output: packed(output) };
        const found = decodeAttention(hidden, { ...weights, ...forms }, place);
        expectClose(found, plain, { rtol: 1e-5, atol: 1e-5 });
      }),
    );
  });

  // The first column that is seen lies in the prompts, is the first of the rows' own, or lies behind it.
  for (const dtype of ['float32', 'bfloat16'] as const)
    for (const rowPrompts of [[0], [1, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 2, 2, 2]])
      for (const first of [0, 2, 5, 9])
        test(`${rowPrompts.length} rows that share prompts of 5 columns, seen from ${first} on, ${dtype}: as with copies`, () => {
          noGrad(() =>
            tidy(() => {
              const rows = rowPrompts.length;
              const { hidden, weights, place } = attentionCase({ name: '', ...LLAMA, rows });
              const form = ({ weight, bias }: FrozenWeight): FrozenWeight => ({
                weight: weight.to(dtype),
                bias,
              });
              const forms = {
                queryKeyValue: form(weights.queryKeyValue),
                output: form(weights.output),
              };
              const caches = (x: Tensor): { prompt: Tensor; own: Tensor; all: Tensor } => {
                const [prompt, own] = [random(3, 2, 5, 16).to(dtype), x.to(dtype)];
                const named = prompt.indexSelect(0, tensor(rowPrompts, { dtype: 'int64' }));
                return { prompt, own, all: cat([named, own], 2) };
              };
              const [keys, values] = [caches(place.keys), caches(place.values)];
              const mask = zeros([3, 5]);
              mask
                .narrow(0, 1, 1)
                .narrow(1, 0, 3)
                .copy_(tensor([[-Infinity]]));
              const masks = mask.indexSelect(0, tensor(rowPrompts, { dtype: 'int64' }));
              const copied = {
                ...place,
                ...{ keys: keys.all, values: values.all, first, column: COLUMN + 5 },
                mask: cat([masks, zeros([rows, CAPACITY])], 1).contiguous(),
              };
              const shared = {
                ...{ keys: keys.prompt, values: values.prompt, mask },
                rows: tensor(rowPrompts, { dtype: 'int32' }),
              };
              const own = { ...place, keys: keys.own, values: values.own, first, shared };
              const all = { ...weights, ...forms };
              const expected = decodeAttention(hidden, all, copied).toArray();
              const close = dtype === 'float32' ? 1e-6 : 1e-2;
              expectClose(decodeAttention(hidden, all, own), expected, {
                rtol: close,
                atol: close,
              });
              expectClose(own.keys.to('float32'), keys.all.narrow(2, 5, CAPACITY).to('float32'));
            }),
          );
        });

  test('refuses what does not fit together, before it writes into a cache', () => {
    noGrad(() =>
      tidy(() => {
        const { hidden, weights, place } = attentionCase({ name: '', ...LLAMA, rows: 2 });
        const keys = place.keys.toArray();
        const refused = (
          changes: {
            hidden?: Tensor;
            weights?: Partial<AttentionWeights>;
            place?: Partial<DecodePlace>;
          },
          said: RegExp,
        ): void => {
          assert.throws(
            () =>
              decodeAttention(
                changes.hidden ?? hidden,
                { ...weights, ...changes.weights },
                { ...place, ...changes.place },
              ),
            said,
          );
        };
        refused({ place: { column: CAPACITY } }, /room at column 23/);
        refused({ place: { column: 3, first: 4 } }, /to be 0 to 3, received 4/);
        refused({ place: { turns: random(3, 16) } }, /expected turns/);
        refused({ place: { turns: random(1, 18) } }, /expected turns/);
        refused(
          { place: { mask: random(2, 5) } },
          /expected a float32 mask of 2 rows and 23 columns/,
        );
        refused({ place: { keys: random(2, 3, CAPACITY, 16) } }, /expected caches/);
        const shared = {
          ...{ keys: random(2, 2, 5, 16), values: random(2, 2, 5, 16), mask: null },
          rows: tensor([0, 1], { dtype: 'int32' }),
        };
        for (const [changes, said] of [
          [{ keys: random(2, 2, 5, 8) }, /expected keys and values of prompts \[P, 2, L, 16\]/],
          [{ rows: tensor([0, 2], { dtype: 'int32' }) }, /expected prompts 0 to 1, received 2/],
          [{ rows: tensor([0, -1], { dtype: 'int32' }) }, /expected prompts 0 to 1, received -1/],
          [
            { rows: tensor([0], { dtype: 'int32' }) },
            /expected the prompt of each row, \[2\] int32/,
          ],
          [{ mask: random(2, 6) }, /expected a float32 mask of 2 rows and 5 columns/],
        ] as const)
          refused({ place: { shared: { ...shared, ...changes } } }, said);
        refused({ hidden: random(32) }, /expected hidden states \[B, D\]/);
        refused({ hidden: random(2, 32).to('float64') }, /float32 or bfloat16/);
        refused({ weights: { queryNorm: random(15) } }, /expected a norm's weight of 16/);
        const odd = { weight: random(100, 32), bias: null };
        refused(
          { weights: { queryKeyValue: odd } },
          /expected queries, keys and values of 2 heads of 16/,
        );
        assert.deepEqual(place.keys.toArray(), keys);
      }),
    );
  });
});

describe('decodeMlp', () => {
  const make = (
    { rows, width, inner }: { rows: number; width: number; inner: number },
    options: { gated: boolean; activation: 'silu' | 'geluTanh'; after: boolean },
  ): { hidden: Tensor; weights: MlpWeights } => {
    const { gated, activation, after } = options;
    const all = gated ? 2 * inner : inner;
    const output = after ? random(width) : null;
    return {
      hidden: random(rows, width),
      weights: {
        norms: { input: random(width), output, eps: 1e-3, roundsLast: false },
        input: { weight: random(all, width), bias: after ? random(all) : null },
        output: { weight: random(width, inner).mul(0.2), bias: after ? random(width) : null },
        ...{ gated, activation },
      },
    };
  };
  for (const gated of [true, false])
    for (const activation of ['silu', 'geluTanh'] as const)
      for (const [rows, width, inner] of [
        [1, 32, 48],
        [3, 13, 19],
        [9, 32, 21],
        [460, 16, 21], // more than go through together
      ] as const)
        test(`[${rows}, ${width}] by ${inner}, ${activation}${gated ? ', gated' : ''}: as in float64, within 1e-5`, () => {
          noGrad(() =>
            tidy(() => {
              const options = { gated, activation, after: rows === 3 || rows === 460 };
              const { hidden, weights } = make({ rows, width, inner }, options);
              const { norms } = weights;
              const both = product(normalised(wide(hidden), norms.input, norms.eps), weights.input);
              const gate = gated ? both.narrow(1, 0, inner) : both;
              const act = activation === 'silu' ? gate.silu() : gate.gelu({ approximate: 'tanh' });
              const product_ = gated ? act.mul(both.narrow(1, inner, inner)) : act;
              const out = product(product_, weights.output);
              const change = norms.output ? normalised(out, norms.output, norms.eps) : out;
              const found = decodeMlp(hidden, weights);
              expectClose(found, wide(hidden).add(change), { rtol: 1e-5, atol: 3e-5 });
            }),
          );
        });

  test('far from zero the activation is 0 or the number itself', () => {
    noGrad(() =>
      tidy(() => {
        const eye = tensor([
          [1, 0],
          [0, 1],
        ]);
        const plain = (weight: Tensor): FrozenWeight => ({ weight, bias: null });
        for (const activation of ['silu', 'geluTanh'] as const) {
          const norms: DecodeNorms = {
            input: tensor([200, 200]),
            ...{ output: null, eps: 1e-9, roundsLast: false },
          };
          const weights = {
            norms,
            input: plain(eye),
            output: plain(eye),
            gated: false,
            activation,
          };
          // Normalised to ±1 and scaled to ±200.
          const found = decodeMlp(tensor([[1, -1]]), weights);
          expectClose(found, [[201, -1]], { rtol: 1e-6, atol: 1e-6 });
        }
      }),
    );
  });

  test('bfloat16 is rounded where operators round it: equal to them but for a last place', () => {
    noGrad(() =>
      tidy(() => {
        const half = (x: Tensor): Tensor => x.to('bfloat16');
        for (const residual of ['bfloat16', 'float32'] satisfies Dtype[])
          for (const roundsLast of [false, true]) {
            const { hidden: all, weights } = make(
              { rows: 2, width: 32, inner: 48 },
              { gated: true, activation: 'silu', after: false },
            );
            const hidden = all.to(residual);
            const form = ({ weight }: FrozenWeight): FrozenWeight => ({
              weight: half(weight),
              bias: null,
            });
            const forms = { input: form(weights.input), output: form(weights.output) };
            const input = weights.norms.input.to('bfloat16').to('float32');
            const norms = { ...weights.norms, input, roundsLast };
            const found = decodeMlp(hidden, { ...weights, ...forms, norms });
            const x32 = hidden.to('float32');
            const unit = x32.mul(x32.square().mean(-1, { keepDim: true }).add(1e-3).rsqrt());
            const normed = roundsLast
              ? half(unit.mul(input))
              : half(unit.to(residual).to('float32').mul(input));
            const both = normed.linear(forms.input.weight);
            const inner = both
              .narrow(1, 0, 48)
              .silu()
              .mul(both.narrow(1, 48, 48));
            const expected = hidden.add(inner.linear(forms.output.weight));
            assert.equal(found.dtype, residual);
            expectClose(found.to('float32'), expected.to('float32'), { rtol: 1e-2, atol: 1e-2 });
          }
      }),
    );
  });

  test('has no gradient, and says so', () => {
    tidy(() => {
      const options = { gated: true, activation: 'silu', after: false } as const;
      const { hidden, weights } = make({ rows: 1, width: 8, inner: 8 }, options);
      hidden.requiresGrad_();
      assert.throws(() => decodeMlp(hidden, weights), /has no gradient/);
      noGrad(() => decodeMlp(hidden, weights));
    });
  });
});

describe('drawRows', () => {
  const uniforms = (count: number): Float64Array =>
    Float64Array.from({ length: count }, (_, index) => (index + 0.5) / count);
  const draw = (logits: Tensor, points: Float64Array, temperature: number) => {
    const flat = noGrad(() => drawRows(logits, tensor(points), temperature)).toTypedArray();
    const rows = flat.length / 2;
    return { ids: Array.from(flat.subarray(0, rows)), logprobs: Array.from(flat.subarray(rows)) };
  };

  // Vocabularies below, at and above the 16 numbers of a register and the 256 of a block.
  for (const vocabulary of [1, 2, 15, 16, 17, 255, 256, 257, 1000])
    for (const temperature of [1, 0.7, 3])
      for (const dtype of ['float32', 'bfloat16'] as const)
        test(`inverts the sum of ${vocabulary} probabilities at temperature ${temperature}, ${dtype}`, () => {
          tidy(() => {
            const rows = 40;
            const logits = random(rows, vocabulary).mul(2).to(dtype);
            const points = uniforms(rows);
            const { ids, logprobs } = draw(logits, points, temperature);
            const exact = logits.to('float64').div(temperature).logSoftmax(-1);
            const sums = exact.exp().cumsum(-1).toArray() as number[][];
            const expected = exact.toArray() as number[][];
            ids.forEach((id, row) => {
              const [below, above] = [
                id === 0 ? 0 : (sums[row]?.[id - 1] ?? NaN),
                sums[row]?.[id] ?? NaN,
              ];
              const point = points[row] ?? NaN;
              assert.ok(
                below <= point + 1e-6 && above > point - 1e-6,
                `row ${row}: ${below} ${point} ${above}`,
              );
              assert.ok(Math.abs((logprobs[row] ?? NaN) - (expected[row]?.[id] ?? NaN)) < 3e-6);
            });
          });
        });

  test('at the ends of the interval it takes the first and last token that has a probability', () => {
    tidy(() => {
      const row = Array.from({ length: 300 }, (_, id) => (id < 20 || id > 270 ? -Infinity : 0));
      const ends = Float64Array.from([0, 1e-300, 1 - 1e-16, 1]);
      const { ids, logprobs } = draw(tensor([row, row, row, row]), ends, 1);
      assert.deepEqual(ids, [20, 20, 270, 270]);
      for (const logprob of logprobs) assert.ok(Math.abs(logprob + Math.log(251)) < 1e-6);
    });
  });

  test('a point on the edge of a block belongs to the next one', () => {
    tidy(() => {
      const points = Float64Array.from([255.5 / 512, 0.5, 256.5 / 512]);
      const { ids } = draw(zeros([3, 512]), points, 1);
      assert.deepEqual(ids, [255, 256, 256]);
    });
  });

  test('blocks without any probability are not reached by rounding', () => {
    tidy(() => {
      const row = Array.from({ length: 600 }, (_, id) => (id < 100 ? 0 : -Infinity));
      assert.deepEqual(draw(tensor([row]), Float64Array.from([1]), 1).ids, [99]);
    });
  });

  test('temperature 0 takes the first of the largest, and its plain log-probability', () => {
    tidy(() => {
      const { ids, logprobs } = draw(tensor([[0, 2, 1, 2]]), Float64Array.from([0.9]), 0);
      assert.deepEqual(ids, [1]);
      const total = 2 * Math.exp(2) + Math.exp(1) + 1;
      assert.ok(Math.abs((logprobs[0] ?? NaN) - Math.log(Math.exp(2) / total)) < 1e-7);
    });
  });

  test('a row with NaN, with +∞ or without any probability has log-probability NaN, others have theirs', () => {
    tidy(() => {
      const broken = [NaN, Infinity, -Infinity];
      for (const temperature of [0, 1]) {
        const rows = [
          ...broken.map((value) => Array<number>(20).fill(value)),
          Array<number>(20).fill(1),
        ];
        rows.push([...Array<number>(19).fill(0), NaN], [Infinity, ...Array<number>(19).fill(0)]);
        const { ids, logprobs } = draw(tensor(rows), new Float64Array(6).fill(0.5), temperature);
        assert.deepEqual(logprobs.map(Number.isNaN), [true, true, true, false, true, true]);
        assert.ok(ids.every((id) => id >= 0 && id < 20));
      }
    });
  });

  test('gives the same on one thread as on several', () => {
    tidy(() => {
      const threads = getNumThreads();
      const logits = random(9, 3000);
      const several = draw(logits, uniforms(9), 1);
      try {
        setNumThreads(1);
        assert.deepEqual(draw(logits, uniforms(9), 1), several);
      } finally {
        setNumThreads(threads);
      }
    });
  });

  test('refuses other shapes and dtypes, a negative temperature, and to be recorded', () => {
    tidy(() => {
      const [logits, points] = [random(2, 5), tensor(uniforms(2))];
      noGrad(() => {
        assert.throws(() => drawRows(logits.view([10]), points, 1), /expected logits \[B, V\]/);
        assert.throws(() => drawRows(logits.to('float64'), points, 1), /float32 or bfloat16/);
        assert.throws(() => drawRows(logits, tensor(uniforms(3)), 1), /a float64 number per row/);
        assert.throws(() => drawRows(logits, points.to('float32'), 1), /a float64 number per row/);
        assert.throws(() => drawRows(logits, points, -1), /temperature of 0 or more/);
      });
      logits.requiresGrad_();
      assert.throws(() => drawRows(logits, points, 1), /no gradient/);
    });
  });
});
