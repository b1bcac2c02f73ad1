/** Which runs are looked at: in the address, and remembered for views whose address names none. */
import { computed, signal } from '@preact/signals';
import type { RunSummary } from '../../src/dashboard/protocol.js';
import { runs } from './api.js';
import { go, place, withQuery } from './route.js';
import { MOST_RUNS } from './theme.js';

const remembered = signal<readonly string[]>([]);

/** Ids in the order in which they were chosen. The order decides their colours. */
export const chosenRuns = computed<readonly string[]>(() => {
  const query = place.value.query['runs'];
  if (query !== undefined) return query.split(',').filter((id) => id !== '');
  return remembered.value;
});

/** Chooses these runs, at most as many as can be told apart. */
export function choose(ids: readonly string[]): void {
  const kept = ids.slice(0, MOST_RUNS);
  remembered.value = kept;
  if (place.value.query['runs'] !== undefined || place.value.path[0] !== 'runs')
    go(withQuery({ runs: kept.join(',') || undefined }), { replace: true });
}

/** Chooses a run, or no longer. */
export function toggle(id: string): void {
  const ids = chosenRuns.value;
  choose(ids.includes(id) ? ids.filter((other) => other !== id) : [...ids, id]);
}

/** The chosen runs that exist; where none is chosen, the newest one. */
export const shownRuns = computed(() => {
  const all = runs.value;
  const chosen = chosenRuns.value.flatMap((id) => all.get(id) ?? []);
  const newest = [...all.values()].reduce<RunSummary | undefined>(
    (best, run) => (best === undefined || (run.started ?? '') > (best.started ?? '') ? run : best),
    undefined,
  );
  return chosen.length > 0 || newest === undefined ? chosen : [newest];
});

/** The run that samples are shown of: the one that the address names, else the first chosen one with samples. */
export const focusedRun = computed(() => {
  const named = place.value.query['run'];
  const found = named === undefined ? undefined : runs.value.get(named);
  if (found !== undefined) return found;
  const withSamples = [...shownRuns.value, ...runs.value.values()].find((run) => run.samples > 0);
  return withSamples ?? shownRuns.value[0];
});
