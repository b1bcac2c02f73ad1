/**
 * Rankings: how a person writes one, and what it says of each two completions. Knows numbers; knows no texts or files.
 *
 * Ranks start at 1 for the best. Equal ranks are a tie, and no rank is left out: `2>1=4>3` is [2, 1, 3, 2].
 */
import { ValueRangeError } from '../errors/index.js';

/** How completions are judged: all in order, or only the best one. */
export type LabelMode = 'rank' | 'choose';

/** Numbers are single keys. */
export const MOST_COMPLETIONS = 9;

const HINTS: Readonly<Record<LabelMode, string>> = {
  rank: 'For example 2>1=4>3, or 21=43 for the same: best first, = between those that are as good as each other.',
  choose: 'For example 2, or 2=3 where both are the best.',
};

/**
 * Reads a judgement of `count` completions that are numbered from 1. In mode `rank` all of them, best first, with `>`
 * (which may be left out) and `=`; in mode `choose` the best one, or several best ones with `=`, all others sharing rank
 * 2. Blanks mean nothing.
 *
 * @returns the rank of each completion, in the order of their numbers
 * @throws ValueRangeError that says what is wrong with the text
 */
export function parseRanking(text: string, count: number, mode: LabelMode): number[] {
  const groups = readGroups(text, count, mode);
  const named = groups.flat();
  if (mode === 'choose') {
    if (groups.length > 1)
      throw fault(mode, `expected one number, or several with = between them, received "${text}"`);
    return Array.from({ length: count }, (_, index) => (named.includes(index + 1) ? 1 : 2));
  }
  const missing = numbersTo(count).filter((number) => !named.includes(number));
  if (missing.length > 0)
    throw fault(mode, `expected all of 1 to ${count}, but "${text}" lacks ${missing.join(', ')}`);
  return numbersTo(count).map((number) => 1 + groups.findIndex((group) => group.includes(number)));
}

/** The numbers in a text: those that share a group are tied, earlier groups are better. */
function readGroups(text: string, count: number, mode: LabelMode): number[][] {
  const groups: number[][] = [];
  let sign: string | undefined;
  for (const character of text.replace(/\s/g, '')) {
    if (character === '>' || character === '=') {
      if (sign !== undefined || groups.length === 0) throw strayFault(text, mode);
      sign = character;
      continue;
    }
    const number = Number(character);
    if (!/^\d$/.test(character))
      throw fault(mode, `expected numbers, > and =, received ${JSON.stringify(character)}`);
    if (number < 1 || number > count)
      throw fault(mode, `expected numbers from 1 to ${count}, received ${number}`);
    if (groups.some((group) => group.includes(number)))
      throw fault(mode, `expected each number once, received ${number} again in "${text}"`);
    if (sign === '=') groups.at(-1)?.push(number);
    else groups.push([number]);
    sign = undefined;
  }
  if (sign !== undefined) throw strayFault(text, mode);
  if (groups.length === 0) {
    const expected = mode === 'rank' ? `the numbers 1 to ${count}, best first` : 'a number';
    throw fault(mode, `expected ${expected}, received nothing`);
  }
  return groups;
}

function strayFault(text: string, mode: LabelMode): ValueRangeError {
  return fault(mode, `expected each > and = to stand between two numbers, received "${text}"`);
}

function fault(mode: LabelMode, message: string): ValueRangeError {
  return new ValueRangeError(`${mode}: ${message}.`, { hint: HINTS[mode] });
}

function numbersTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

/** Ranks as `parseRanking` reads them. */
export function formatRanking(ranks: readonly number[], mode: LabelMode): string {
  const groups = [...new Set(ranks)]
    .sort((a, b) => a - b)
    .map((rank) => ranks.flatMap((other, index) => (other === rank ? [index + 1] : [])).join('='));
  return mode === 'choose' ? (groups[0] ?? '') : groups.join('>');
}

/** Two completions of which one is better, by their indices. */
export interface RankedPair {
  readonly chosen: number;
  readonly rejected: number;
}

/** Every ordered pair of unequal rank: the better ones first, then by index. Ties give none. */
export function pairsOf(ranks: readonly number[]): RankedPair[] {
  const indices = [...ranks.keys()];
  return indices
    .flatMap((chosen) => indices.map((rejected) => ({ chosen, rejected })))
    .filter(({ chosen, rejected }) => (ranks[chosen] ?? 0) < (ranks[rejected] ?? 0))
    .sort((a, b) => (ranks[a.chosen] ?? 0) - (ranks[b.chosen] ?? 0));
}
