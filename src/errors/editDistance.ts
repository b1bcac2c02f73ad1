/** How far texts are from one another: for messages that begin with what was meant. */

/**
 * Fewest insertions, deletions, replacements and swaps of neighbours that turn one text into the other, no part being
 * edited twice (optimal string alignment).
 */
export function editDistance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const replaced = (last[column - 1] ?? 0) + (from[row - 1] === to[column - 1] ? 0 : 1);
      const edited = Math.min(replaced, (last[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1);
      const swapped = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      current.push(
        row > 1 && column > 1 && swapped
          ? Math.min(edited, (beforeLast[column - 2] ?? 0) + 1)
          : edited,
      );
    }
    beforeLast = last;
    last = current;
  }
  return last[to.length] ?? 0;
}

/** Names with those first that are fewest letters away from an unknown one; equally far ones stay in their order. */
export function nearestFirst(unknown: string, names: readonly string[]): string[] {
  const plain = unknown.toLowerCase();
  const distances = new Map(names.map((name) => [name, editDistance(plain, name.toLowerCase())]));
  return [...names].sort((a, b) => (distances.get(a) ?? 0) - (distances.get(b) ?? 0));
}
