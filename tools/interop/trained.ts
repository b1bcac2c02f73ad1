/**
 * Trains here what parity.py trained with TRL, writes the models to a folder, and compares every weight with TRL's.
 *
 *     npx tsx tools/interop/trained.ts /tmp/interop/trl /tmp/interop/posttrain [method ...]
 *
 * The first folder is what `parity.py --save` wrote; its models are opened here and must say what they say in
 * transformers. Each new folder has reads.json for checkTrained.py. Exits with 1 when a deviation is above its tolerance.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadModel, loadScalarModel, ScalarModel, type Decoder } from '../../src/models/index.js';
import {
  PARITY_METHODS,
  perReport,
  trainHere,
  valuesOf,
  type ParityMethod,
} from '../../test/interop/parity.js';
import {
  languageReads,
  scoreReads,
  type LanguageReads,
  type ScoreReads,
} from '../../test/interop/reads.js';

const [theirs = '/tmp/interop/trl', ours = '/tmp/interop/posttrain', ...named] =
  process.argv.slice(2);
const methods = PARITY_METHODS.filter((method) => named.length === 0 || named.includes(method));

type Reads = LanguageReads | ScoreReads;

function readsOf(model: Decoder | ScalarModel, rows: Reads['rows']): Promise<Reads> {
  return model instanceof ScalarModel
    ? Promise.resolve(scoreReads(model, rows))
    : languageReads(model, rows);
}

/** The largest difference of numbers; Infinity where the continuations differ. */
function distance(a: Reads, b: Reads): number {
  if ('scores' in a) return 'scores' in b ? largest(a.scores, b.scores) : Infinity;
  if ('scores' in b || JSON.stringify(a.greedy) !== JSON.stringify(b.greedy)) return Infinity;
  return largest(a.logits.flat(), b.logits.flat());
}

function largest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  return Array.from(a).reduce((most, value, at) => {
    const difference = Math.abs(value - (b[at] ?? NaN));
    return difference <= most ? most : difference;
  }, 0);
}

/** Largest |a − b| / |b|, of which no b counts as less than 0.01: losses of GRPO pass through 0. */
function largestRelative(a: readonly number[], b: readonly number[]): number {
  return largest(
    a.map((value, at) => value / Math.max(Math.abs(b[at] ?? NaN), 1e-2)),
    b.map((value) => value / Math.max(Math.abs(value), 1e-2)),
  );
}

async function compare(method: ParityMethod): Promise<boolean> {
  const { golden, model, before, reports } = await trainHere(method);
  const losses = reports.map((report) => report['loss'] ?? NaN);
  const loss = largestRelative(losses, perReport(golden.losses, reports.length));

  const folder = join(theirs, method);
  const opened = await (method === 'reward' ? loadScalarModel(folder) : loadModel(folder));
  const saved = JSON.parse(readFileSync(join(folder, 'reads.json'), 'utf8')) as Reads;
  const reads = distance(await readsOf(opened, saved.rows), saved);

  let weights = 0;
  let apart = 0;
  let moved = 0;
  const trl = valuesOf(opened);
  for (const [name, values] of valuesOf(model)) {
    const other = trl.get(name) ?? new Float32Array();
    const start = before.get(name) ?? new Float32Array();
    weights = Math.max(weights, largest(values, other));
    values.forEach((value, at) => {
      apart += (value - (other[at] ?? NaN)) ** 2;
      moved += ((other[at] ?? NaN) - (start[at] ?? NaN)) ** 2;
    });
  }

  const out = join(ours, method);
  mkdirSync(out, { recursive: true });
  await model.save(out);
  writeFileSync(join(out, 'reads.json'), JSON.stringify(await readsOf(model, saved.rows)));
  const numbers = { loss, weights, change: Math.sqrt(apart / moved), reads };
  const good = loss <= 1e-4 && weights <= 1e-5 && reads <= 1e-5;
  const shown = Object.entries(numbers).map(([name, value]) => `${name} ${value.toExponential(1)}`);
  process.stdout.write(`${good ? 'ok  ' : 'FAIL'} ${method}: ${shown.join(', ')}\n`);
  model.dispose();
  opened.dispose();
  return good;
}

for (const method of methods) if (!(await compare(method))) process.exitCode = 1;
