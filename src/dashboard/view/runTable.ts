/** The list of runs: what is searched, sorted and indented. Plain TypeScript: it runs in the browser. */
import type { RunSummary } from '../protocol.js';

/** What the list can be sorted by. */
export type RunColumn =
  'name' | 'state' | 'method' | 'model' | 'progress' | 'left' | 'reward' | 'kl' | 'updated';

/** A column, and which way. */
export interface RunOrder {
  readonly column: RunColumn;
  readonly descending: boolean;
}

/** A run with how deep it lies in others that are listed. */
export interface RunRow {
  readonly run: RunSummary;
  readonly depth: number;
}

/** The runs whose name, method, model, data or state hold every word of a search, upper and lower case alike. */
export function searchRuns(runs: readonly RunSummary[], search: string): RunSummary[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return runs.filter(({ name, method, preset, model, data, state }) => {
    const text = [name, method, preset, model, data, state].join(' ').toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

/**
 * Runs in their order, each followed by those that lie in it. What has no value in a column comes last either way; runs
 * that are alike stay in the order in which they were given.
 */
export function arrangeRuns(runs: readonly RunSummary[], order: RunOrder): RunRow[] {
  const sorted = runs.toSorted((a, b) => compare(a, b, order));
  const listed = new Set(sorted.map(({ id }) => id));
  const inside = new Map<string, RunSummary[]>();
  for (const run of sorted) {
    const parent = run.parent !== null && listed.has(run.parent) ? run.parent : '';
    inside.set(parent, [...(inside.get(parent) ?? []), run]);
  }
  const seen = new Set<string>();
  const below = (parent: string, depth: number): RunRow[] =>
    (inside.get(parent) ?? []).flatMap((run) => {
      if (seen.has(run.id)) return []; // a folder that names itself as its parent
      seen.add(run.id);
      return [{ run, depth }, ...below(run.id, depth + 1)];
    });
  return below('', 0);
}

function compare(a: RunSummary, b: RunSummary, { column, descending }: RunOrder): number {
  const [left, right] = [sortKey(a, column), sortKey(b, column)];
  if (left === null || right === null) return Number(left === null) - Number(right === null);
  const ascending =
    typeof left === 'string' && typeof right === 'string'
      ? left.localeCompare(right, 'en', { numeric: true })
      : Number(left) - Number(right);
  return descending ? -ascending : ascending;
}

function sortKey(run: RunSummary, column: RunColumn): string | number | null {
  switch (column) {
    case 'name':
    case 'state':
    case 'method':
    case 'model':
      return run[column];
    case 'progress':
      return run.totalSteps === null ? null : run.step / Math.max(1, run.totalSteps);
    case 'left':
      return run.secondsLeft;
    case 'reward':
      return run.latest['reward'] ?? null;
    case 'kl':
      return run.latest['klPolicyReference'] ?? null;
    case 'updated':
      return run.updated ?? run.started;
  }
}
