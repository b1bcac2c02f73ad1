/**
 * Sends what MLflow is most likely to refuse to a real server: names that are no names of MLflow's, values that are not
 * finite, more than one batch holds, long settings, a batch twice. tools/interop/trackers.py reads it back.
 *
 *     npx tsx tools/interop/tracked.ts ADDRESS FOLDER
 */
import {
  mlflowAccess,
  mlflowCall,
  MlflowTracker,
  type TrackedRun,
} from '../../src/trackers/index.js';

const [address = 'http://127.0.0.1:5000', directory = '/tmp/hostile'] = process.argv.slice(2);
const tracker = new MlflowTracker({
  call: mlflowCall(mlflowAccess(address)),
  ...{ address, experiment: 'hostile' },
});
const run: TrackedRun = {
  ...{ directory, name: 'hostile', method: 'sft', seed: 0, commit: null, totalSteps: 3 },
  config: {
    long: 'x'.repeat(20_000),
    empty: '',
    ...Object.fromEntries(Array.from({ length: 150 }, (_, index) => [`many.${index}`, index])),
  },
  inputs: { data: 'y'.repeat(20_000) },
  started: new Date().toISOString(),
  ...{ resumedFrom: undefined, changed: [], remembered: undefined, remember: () => undefined },
};
const { signal } = new AbortController();
await tracker.begin(run, signal);
const wide = Object.fromEntries(
  Array.from({ length: 800 }, (_, index) => [`wide/${index}`, index]),
);
const steps = [
  { step: 1, time: new Date(), metrics: { ...wide, 'reward/format:/^a//../b$/': 1, 'loss?': NaN } },
  { step: 2, time: new Date(), metrics: { ...wide, 'loss?': Infinity, 'loss*': -Infinity } },
];
await tracker.log(steps, signal);
await tracker.log(steps, signal);
await tracker.end('stopped', signal);
