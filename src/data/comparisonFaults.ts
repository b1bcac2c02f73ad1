/** What the pairs of one ranking must not say of each other. Knows rows, not tokens. */
import { placeOf, type Row } from './row.js';

/** A pair as far as its ranking is concerned. */
export interface RankedPair {
  /** The ranking it comes from; undefined where it stands alone. */
  readonly comparison: string | undefined;
  readonly row: Row;
}

/** A pair that does not belong to the ranking that it names. */
export interface ComparisonFault<Pair extends RankedPair> {
  readonly pair: Pair;
  readonly sentence: string;
  readonly hint: string;
}

/**
 * The pairs that contradict an earlier one of their comparison (a preferred to b, and b to a), and those without a prompt
 * that share no completion with the others, neither directly nor by further pairs: of one prompt they would be a ranking,
 * and whether it is one prompt nothing says. (The beginning that a pair has in common cannot say it: it differs within a
 * ranking too, where two completions begin alike.)
 *
 * @returns the faults in the order of the pairs, at most one per pair
 */
export function comparisonFaults<Pair extends RankedPair>(
  pairs: readonly Pair[],
): ComparisonFault<Pair>[] {
  const found = new Map<Pair, ComparisonFault<Pair>>();
  for (const ranking of rankingsOf(pairs)) {
    for (const fault of [...strangers(ranking), ...contradictions(ranking)])
      found.set(fault.pair, fault);
  }
  return pairs.flatMap((pair) => found.get(pair) ?? []);
}

/**
 * The first pairs of the comparisons whose preferences go in a circle: a preferred to b, b to c, and c to a. Several
 * judges may differ so, and pairs of a circle are trained like others, but no ranking agrees with all of them.
 */
export function preferenceCircles<Pair extends RankedPair>(pairs: readonly Pair[]): Pair[] {
  return rankingsOf(pairs).flatMap((ranking) => (isCircular(ranking) ? ranking.slice(0, 1) : []));
}

function rankingsOf<Pair extends RankedPair>(pairs: readonly Pair[]): Pair[][] {
  const rankings = new Map<string, Pair[]>();
  for (const pair of pairs) {
    if (pair.comparison === undefined) continue;
    const others = rankings.get(pair.comparison);
    if (others) others.push(pair);
    else rankings.set(pair.comparison, [pair]);
  }
  return [...rankings.values()];
}

/** Whether preferences are left when again and again those of completions are taken away that none is preferred to. */
function isCircular(ranking: readonly RankedPair[]): boolean {
  let left = ranking.map(sidesOf);
  for (let before = Infinity; left.length < before;) {
    before = left.length;
    const beaten = new Set(left.map(([, rejected]) => rejected));
    left = left.filter(([chosen]) => beaten.has(chosen));
  }
  return left.length > 0;
}

function contradictions<Pair extends RankedPair>(
  ranking: readonly Pair[],
): ComparisonFault<Pair>[] {
  const earlier = new Map<string, Pair>();
  return ranking.flatMap((pair) => {
    const [chosen, rejected] = sidesOf(pair);
    const opposite = earlier.get(`${rejected} ${chosen}`);
    if (opposite === undefined) {
      earlier.set(`${chosen} ${rejected}`, pair);
      return [];
    }
    return [
      {
        pair,
        sentence: `expected the preference of ${placeOf(opposite.row)}, which is of comparison ${nameOf(pair)} too, received the opposite one.`,
        hint: 'One ranking prefers one of two completions. Leave one of the rows out, or give another ranking another name.',
      },
    ];
  });
}

/** Pairs without a prompt outside the part of the ranking that its first pair is in. */
function strangers<Pair extends RankedPair>(ranking: readonly Pair[]): ComparisonFault<Pair>[] {
  const [first] = ranking;
  if (first === undefined || (first.row.values['prompt'] ?? null) !== null) return [];
  const known = new Set(sidesOf(first));
  let outside = ranking.slice(1);
  for (let before = Infinity; outside.length < before;) {
    before = outside.length;
    outside = outside.filter((pair) => {
      const sides = sidesOf(pair);
      if (!sides.some((side) => known.has(side))) return true;
      for (const side of sides) known.add(side);
      return false;
    });
  }
  return outside.map((pair) => ({
    pair,
    sentence: `expected a completion of ${placeOf(first.row)}, or of another pair of comparison ${nameOf(pair)}, received two others.`,
    hint: 'A comparison ranks completions of one prompt. Write the prompt into a column "prompt", or give other prompts other names.',
  }));
}

function nameOf({ comparison }: RankedPair): string {
  return JSON.stringify(comparison);
}

function sidesOf({ row }: RankedPair): [string, string] {
  const { chosen, rejected } = row.values;
  return [JSON.stringify(chosen), JSON.stringify(rejected)];
}
