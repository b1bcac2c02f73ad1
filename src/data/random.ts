/** Small seeded random numbers for data: orders, splits, made tasks. (Tensors have their own streams.) */
import { ValueRangeError } from '../errors/index.js';

/**
 * A stream of random numbers, the same for the same seed on every machine.
 *
 * Source: sfc32 of Chris Doty-Humphrey's PractRand (128 bits of state, passes its tests), seeded by splitmix32 and
 * warmed up by 12 draws as its author advises. Not for secrets.
 */
export class SeededRandom {
  private readonly state: Uint32Array;

  /**
   * @param seed any safe integer
   * @param stream tells independent streams of one seed apart, for example the epoch
   * @throws ValueRangeError if either is not a safe integer
   */
  constructor(seed: number, stream = 0) {
    const words = [...wordsOf('seed', seed), ...wordsOf('stream', stream)];
    let mixed = 0;
    const next = (word: number): number => {
      mixed = splitmix32((mixed ^ word) >>> 0);
      return mixed;
    };
    for (const word of words) next(word);
    this.state = Uint32Array.of(next(1), next(2), next(3), 1);
    for (let i = 0; i < 12; i++) this.nextUint32();
  }

  /** The next 32 random bits, as an integer in [0, 2³²). */
  nextUint32(): number {
    const [a = 0, b = 0, c = 0, counter = 0] = this.state;
    const result = (a + b + counter) >>> 0;
    this.state[0] = b ^ (b >>> 9);
    this.state[1] = c + (c << 3);
    this.state[2] = ((c << 21) | (c >>> 11)) + result;
    this.state[3] = counter + 1;
    return result;
  }

  /** A number in [0, 1), with 53 random bits. */
  nextFloat(): number {
    const high = this.nextUint32() >>> 5;
    const low = this.nextUint32() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  /**
   * An integer in [0, bound), each equally likely.
   *
   * @throws ValueRangeError if `bound` is not an integer from 1 to 2³²
   */
  nextInt(bound: number): number {
    if (!Number.isInteger(bound) || bound < 1 || bound > 2 ** 32) {
      throw new ValueRangeError(
        `SeededRandom.nextInt: expected a bound from 1 to 2^32, received ${bound}.`,
      );
    }
    // Draws above the largest multiple of the bound are repeated: taking the remainder of those would favour small values.
    const limit = 2 ** 32 - (2 ** 32 % bound);
    let draw = this.nextUint32();
    while (draw >= limit) draw = this.nextUint32();
    return draw % bound;
  }

  /** The integers 0 … length − 1 in random order (Fisher–Yates). */
  permutation(length: number): Int32Array {
    const order = Int32Array.from({ length }, (_, index) => index);
    for (let i = length - 1; i > 0; i--) {
      const j = this.nextInt(i + 1);
      const kept = order[i] ?? 0;
      order[i] = order[j] ?? 0;
      order[j] = kept;
    }
    return order;
  }
}

/** Source: splitmix32, the 32-bit finaliser of MurmurHash3 over a Weyl sequence. */
function splitmix32(state: number): number {
  let z = (state + 0x9e3779b9) | 0;
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
  return (z ^ (z >>> 16)) >>> 0;
}

/** Low and high 32 bits of a safe integer, so that seeds beyond 2³² and negative ones differ too. */
function wordsOf(name: string, value: number): [number, number] {
  if (!Number.isSafeInteger(value)) {
    throw new ValueRangeError(
      `SeededRandom: expected ${name} to be a safe integer, received ${value}.`,
    );
  }
  return [value >>> 0, Math.floor(value / 2 ** 32) >>> 0];
}
