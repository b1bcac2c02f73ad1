import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ValueRangeError } from '../errors/index.js';
import {
  deriveSeed,
  Generator,
  getRngState,
  manualSeed,
  rand,
  randint,
  randn,
  randperm,
  setRngState,
  tensor,
  uniformAt,
} from './index.js';

/** One more in a bin. */
function count1(bins: Float64Array, bin: number): void {
  bins[bin] = (bins[bin] ?? 0) + 1;
}

describe('Generator', () => {
  test('of one seed gives one stream', () => {
    const [a, b] = [new Generator(3), new Generator(3)];
    assert.ok(randn([20], { generator: a }).equal(randn([20], { generator: b })));
    assert.ok(rand([20], { generator: a }).equal(rand([20], { generator: b })));
    assert.ok(!randn([20], { generator: new Generator(4) }).equal(randn([20], { generator: a })));
  });

  test('continues from its state', () => {
    const generator = new Generator(3);
    randn([3], { generator });
    const state = generator.getState();
    const first = randperm(50, { generator });
    const other = new Generator(99);
    other.setState(state);
    assert.ok(randperm(50, { generator: other }).equal(first));
    generator.setState(state);
    assert.ok(randperm(50, { generator }).equal(first));
  });

  test('does not touch libtorch’s own stream', () => {
    manualSeed(5);
    const expected = rand([4]);
    manualSeed(5);
    randn([100], { generator: new Generator(1) });
    assert.ok(rand([4]).equal(expected));
  });

  test('refuses a state that is none', () => {
    const generator = new Generator(1);
    assert.throws(
      () => generator.setState(tensor(new Uint8Array(3))),
      /generator: .*size.* but found the input RNG state size to be 3/,
    );
    assert.throws(() => generator.setState(tensor([1])), /generator: RNG state must be/);
  });

  test('refuses a seed that is no integer from 0 to 2⁵³ − 1', () => {
    for (const seed of [-1, 0.5, NaN, 2 ** 53]) {
      assert.throws(() => new Generator(seed), ValueRangeError);
      assert.throws(() => manualSeed(seed), ValueRangeError);
      assert.throws(() => deriveSeed(seed), ValueRangeError);
    }
    assert.ok(new Generator(2 ** 53 - 1));
  });
});

describe('the default stream', () => {
  test('repeats from a seed, and from a state', () => {
    manualSeed(7);
    const first = randint(0, 1000, [10]);
    const state = getRngState();
    const second = randint(0, 1000, [10]);
    manualSeed(7);
    assert.ok(randint(0, 1000, [10]).equal(first));
    setRngState(state);
    assert.ok(randint(0, 1000, [10]).equal(second));
  });
});

describe('deriveSeed', () => {
  test('gives integers below 2⁵³, always the same', () => {
    // Written down, because a run must draw the same after an update of posttrain.
    assert.deepEqual(
      [deriveSeed(), deriveSeed(0), deriveSeed(0, 'row', 1), deriveSeed(2 ** 53 - 1, 'é😀')],
      [8842858868181203, 8568066076275001, 5163254355625509, 616982073193733],
    );
    for (let i = 0; i < 1000; i++) {
      const seed = deriveSeed(1, 'x', i);
      assert.ok(Number.isSafeInteger(seed) && seed >= 0);
    }
  });

  test('depends on the order, on where a text ends, and on whether it is a text', () => {
    const seeds = [
      deriveSeed(),
      deriveSeed(''),
      deriveSeed(0),
      deriveSeed(0, 0),
      deriveSeed(0, 1),
      deriveSeed(1, 0),
      deriveSeed(2 ** 32),
      deriveSeed('0'),
      deriveSeed('ab', 'c'),
      deriveSeed('a', 'bc'),
      deriveSeed('abc'),
      deriveSeed('a'),
      // The words that 'a' is made of, as one number.
      deriveSeed('a'.charCodeAt(0) * 2 ** 32 + 0x53545201),
    ];
    assert.equal(new Set(seeds).size, seeds.length);
  });

  test('does not collide, nor do its low 32 bits more often than chance has it', () => {
    // 2²⁰ seeds of 53 bits collide with probability 2⁴⁰/2/2⁵³ = 6e-5. Their low words have a Poisson number of
    // collisions with mean 2⁴⁰/2/2³² = 128; more than 200 have probability 1e-9.
    const count = 2 ** 20;
    const seeds = Float64Array.from({ length: count }, (_, i) =>
      deriveSeed(i % 2, 'row', Math.floor(i / 2)),
    );
    assert.equal(new Set(seeds).size, count);
    const low = new Set(seeds.map((seed) => seed % 2 ** 32)).size;
    const high = new Set(seeds.map((seed) => Math.floor(seed / 2 ** 21))).size;
    assert.ok(count - low < 200, `${count - low} collisions of the low words`);
    assert.ok(count - high < 200, `${count - high} collisions of the high words`);
  });
});

describe('uniformAt', () => {
  test('lies in (0, 1) and is uniform', () => {
    // χ² of 2¹⁸ draws in 256 bins has 255 degrees of freedom: mean 255, standard deviation 22.6. Outside of 130 … 430
    // with probability below 1e-9. For each of the first and the last eight bits that can be seen in 2⁻³².
    const count = 2 ** 18;
    for (const seed of [0, 1, 2 ** 52]) {
      const [first, last] = [new Float64Array(256), new Float64Array(256)];
      let sum = 0;
      for (let i = 0; i < count; i++) {
        const value = uniformAt(seed, i);
        assert.ok(value > 0 && value < 1);
        sum += value;
        count1(first, Math.floor(value * 256));
        count1(last, Math.floor(value * 2 ** 32) % 256);
      }
      for (const bins of [first, last]) {
        const expected = count / 256;
        const chiSquare = bins.reduce((total, n) => total + (n - expected) ** 2 / expected, 0);
        assert.ok(chiSquare > 130 && chiSquare < 430, `seed ${seed}: χ² = ${chiSquare}`);
      }
      // The mean has standard deviation 1/√(12·count) = 5.6e-4: beyond 7 of them with probability 3e-12.
      assert.ok(Math.abs(sum / count - 0.5) < 7 / Math.sqrt(12 * count), `mean ${sum / count}`);
    }
  });

  test('neighbours in seed and counter are uncorrelated', () => {
    // The correlation of n independent pairs has standard deviation 1/√n: beyond 7 of them with probability 3e-12.
    const count = 2 ** 16;
    const pairs: [string, (i: number) => [number, number]][] = [
      ['counters', (i) => [uniformAt(3, i), uniformAt(3, i + 1)]],
      ['seeds', (i) => [uniformAt(i, 3), uniformAt(i + 1, 3)]],
    ];
    for (const [name, pair] of pairs) {
      let product = 0;
      for (let i = 0; i < count; i++) {
        const [a, b] = pair(i);
        product += 12 * (a - 0.5) * (b - 0.5);
      }
      assert.ok(Math.abs(product / count) < 7 / Math.sqrt(count), `${name}: ${product / count}`);
    }
  });
});
