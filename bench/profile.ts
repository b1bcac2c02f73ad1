/**
 * Where the time goes: every call of the addon is timed and added up by operator. On the CPU a call returns when the
 * work is done, so its duration is its cost. What remains of the wall time is JavaScript, and what timing itself costs
 * (about 0.1 µs per call).
 *
 * Imported before anything of src/torch, so that operators are wrapped before they are bound.
 */
import { onLoad, type Native } from '../src/torch/native.js';
import type { ProfileRow } from './jobs.js';

type Call = (...args: unknown[]) => unknown;

const rows = new Map<string, { calls: number; milliseconds: number }>();
let since = 0;

function record(name: string, milliseconds: number): void {
  const row = rows.get(name);
  if (row) {
    row.calls++;
    row.milliseconds += milliseconds;
  } else rows.set(name, { calls: 1, milliseconds });
}

function timed(call: Call, nameOf: (result: unknown) => string): Call {
  return (...args) => {
    const start = performance.now();
    const result = call(...args);
    const milliseconds = performance.now() - start;
    record(nameOf(result), milliseconds);
    return result;
  };
}

/** Matrix products are told apart by their number of columns. */
const PRODUCTS = new Set(['aten::linear', 'mkldnn::_linear_pointwise']);

onLoad((addon: Native) => {
  const functions = addon as unknown as Record<string, Call>;
  const shapeOf = addon.shape.bind(addon);
  const bindOperator = addon.operator.bind(addon);
  for (const [name, call] of Object.entries(functions)) {
    if (['operator', 'schemaOf', 'setErrorFactory'].includes(name)) continue;
    functions[name] = timed(call, () => name);
  }
  addon.operator = (name) =>
    timed(bindOperator(name) as Call, (result) =>
      PRODUCTS.has(name) && typeof result === 'number'
        ? `${name} → ${shapeOf(result).at(-1)}`
        : name,
    );
});

/** Forgets what was recorded so far. */
export function resetProfile(): void {
  rows.clear();
  since = performance.now();
}

/** Calls since the last reset, the most costly first, with the rest of the wall time as `JavaScript`. */
export function readProfile(): ProfileRow[] {
  const wall = performance.now() - since;
  const sorted = [...rows]
    .map(([name, row]) => ({ name, ...row }))
    .sort((a, b) => b.milliseconds - a.milliseconds);
  const inside = sorted.reduce((sum, row) => sum + row.milliseconds, 0);
  return [...sorted, { name: 'JavaScript', calls: 1, milliseconds: wall - inside }];
}
