/** What can be taken along: metrics as CSV, samples as the lines of their file. Written in pieces. */
import type { FollowedRun } from './followedRun.js';
import { nameOfPlace } from './watchedFolders.js';

const LINES_AT_ONCE = 500;

/** Step, seconds and the named metrics (all where missing), a line per step; empty where a step has none. */
export function metricsCsv(run: FollowedRun, keys?: readonly string[]): ReadableStream<Uint8Array> {
  const { table } = run;
  const columns = (keys ?? table.keys).flatMap((key) => {
    const column = table.column(key);
    return column ? [{ key, values: column.values }] : [];
  });
  const { steps, seconds, lines } = table;
  const line = (at: number): string =>
    [steps[at], seconds[at], ...columns.map(({ values }) => values[at])]
      .map((value) => (value === undefined || Number.isNaN(value) ? '' : String(value)))
      .join(',');
  const head = ['step', 'seconds', ...columns.map(({ key }) => csvText(key))].join(',');
  let next = 0;
  return inPieces(() => {
    if (next > lines) return undefined;
    const from = next;
    next = Math.min(lines, from + LINES_AT_ONCE);
    const rows = Array.from({ length: next - from }, (_, at) => `${line(from + at)}\n`);
    if (next === lines) next = lines + 1;
    return `${from === 0 ? `${head}\n` : ''}${rows.join('')}`;
  });
}

/** Lines of samples, as they are in the file. */
export function samplesJsonl(
  run: FollowedRun,
  places: readonly number[],
): ReadableStream<Uint8Array> {
  let next = 0;
  return inPieces(async () => {
    if (next >= places.length) return undefined;
    const part = places.slice(next, next + 50);
    next += part.length;
    const lines = await run.samples.lines(part);
    return lines.map((line) => (line ? `${line.toString('utf8')}\n` : '')).join('');
  });
}

/** The name of a file to save something of a run in. */
export function exportName(run: FollowedRun, ending: string): string {
  const name = nameOfPlace(run.place)
    .replace(/[^\w.-]+/g, '-')
    .slice(0, 100);
  return `${name}-${ending}`;
}

function inPieces(
  next: () => string | undefined | Promise<string | undefined>,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const text = await next();
      if (text === undefined) controller.close();
      else controller.enqueue(encoder.encode(text));
    },
  });
}

/** A text as a field. A table program must not take the name of a metric for a formula. */
function csvText(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
