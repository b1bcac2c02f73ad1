/** A calculator as an environment of two turns: the model may call it once before it answers. */
import type { Environment } from './environment.js';

/** What `calculatorEnvironment` remembers of an episode. */
export interface CalculatorState {
  /** Calls so far, refused ones included. */
  readonly calls: number;
}

/** What a call that cannot be answered gets. */
const REFUSAL = '?;';

/**
 * The calculator. A turn with `=` calls it: `17*46+8=` is answered `790;`. Only the first call of an episode is answered;
 * a second one, and one that is not an expression up to a final `=`, get `?;`. A turn without `=` is the model's answer
 * and ends the episode.
 */
export const calculatorEnvironment: Environment<CalculatorState> = {
  name: 'calculator',
  stop: ['='],
  reset() {
    return { calls: 0 };
  },
  step({ calls }, { text }) {
    if (!text.includes('=')) return { state: { calls }, observation: '', done: true };
    // Where = is not the last character, it is still in what is evaluated, and refused.
    const value = calls === 0 ? evaluate(text.slice(0, -1)) : undefined;
    const observation = value === undefined ? REFUSAL : `${value};`;
    return { state: { calls: calls + 1 }, observation, done: false };
  },
};

const EXPRESSION = /^\s*-?\d+(?:\s*[-+*]\s*-?\d+)*\s*$/;

/**
 * The exact value of integers joined by `+`, `-` and `*`, products first; an integer may have a sign, and there may be
 * spaces between the parts.
 *
 * @returns undefined for any other text
 */
export function evaluate(expression: string): bigint | undefined {
  if (!EXPRESSION.test(expression)) return undefined;
  let sum = 0n;
  let product = 0n;
  for (const [, operator, integer = ''] of expression
    .replaceAll(/\s/g, '')
    .matchAll(/([-+*]?)(-?\d+)/g)) {
    if (operator === '*') {
      product *= BigInt(integer);
      continue;
    }
    sum += product;
    product = operator === '-' ? -BigInt(integer) : BigInt(integer);
  }
  return sum + product;
}
