/**
 * Random streams. libtorch's own generators serve weights and dropout; everything that a run must be able to repeat
 * row by row (shuffles, sampling) comes from counters: a value depends on (seed, purpose, step, row) and on nothing else.
 */
import { ValueRangeError } from '../errors/index.js';
import { native, type GeneratorSlot } from './native.js';
import { wrap, type Tensor } from './tensor.js';

/** Seeds libtorch's default generator of every device. */
export function manualSeed(seed: number): void {
  native().manualSeed(checkSeed('manualSeed', seed));
}

function checkSeed(where: string, seed: number): number {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new ValueRangeError(
      `${where}: expected a seed that is an integer from 0 to 2^53 − 1, received ${seed}.`,
    );
  }
  return seed;
}

const forgotten = new FinalizationRegistry<GeneratorSlot>((slot) =>
  native().releaseGenerator(slot),
);

/** A stream of random numbers of its own, for `randn` and its like. */
export class Generator {
  /** @internal */
  readonly slot: GeneratorSlot;

  constructor(seed: number, device = 'cpu') {
    this.slot = native().createGenerator(device, checkSeed('Generator', seed));
    forgotten.register(this, this.slot);
  }

  /** The stream's state as uint8, for checkpoints. */
  getState(): Tensor {
    return wrap(native().generatorState(this.slot));
  }

  /** Continues from a state of `getState`. */
  setState(state: Tensor): void {
    native().setGeneratorState(this.slot, state.slot);
  }
}

/** The state of libtorch's default generator of a device as uint8, for checkpoints. */
export function getRngState(device = 'cpu'): Tensor {
  return wrap(native().generatorState(device));
}

/** Continues libtorch's default generator of a device from a state of `getRngState`. */
export function setRngState(state: Tensor, device = 'cpu'): void {
  native().setGeneratorState(device, state.slot);
}

const GOLDEN = 0x9e3779b9;

// One round of mixing of 32-bit words: the finaliser of MurmurHash3, whose constants are public domain.
function mix(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

// One to one in the state and in the word, so that nothing is lost from step to step; MurmurHash3's too.
function absorb(state: number, word: number): number {
  const mixed = state ^ mix((word + GOLDEN) | 0);
  return mix(Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64);
}

/**
 * A seed derived from others: numbers (integers below 2⁵³) and names, in order. Distinct inputs give seeds that are
 * unrelated for every practical purpose; the result is an integer below 2⁵³.
 */
export function deriveSeed(...parts: readonly (number | string)[]): number {
  let high = 0x243f6a88;
  let low = 0x85a308d3;
  const push = (word: number): void => {
    high = absorb(high, word);
    low = absorb(low ^ high, word + 0x3c6ef372);
  };
  for (const part of parts) {
    // The first word tells a number (below 2²¹) from a string.
    if (typeof part === 'string') {
      push(0x53545200 + part.length);
      for (const character of part) push(character.codePointAt(0) ?? 0);
    } else {
      checkSeed('deriveSeed', part);
      push(Math.floor(part / 2 ** 32));
      push(part >>> 0);
    }
  }
  return (high & 0x1fffff) * 2 ** 32 + low;
}

/** A number in (0, 1) with 52 random bits that depends on `seed` and `counter` only. Never exactly 0 or 1. */
export function uniformAt(seed: number, counter: number): number {
  const bits = deriveSeed(seed, counter);
  return (Math.floor(bits / 2) + 0.5) / 2 ** 52;
}
