/** Results as a file and as a table. Knows no process. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Cell } from './jobs.js';
import { ROOT, type Circumstances } from './machine.js';
import { isRate, unitOf, type Ratio, type Side } from './statistics.js';

/** One line of the table. */
export interface Row extends Pick<Cell, 'name' | 'quantity' | 'job'> {
  readonly ours: Side;
  readonly against?: Side;
  readonly ratio?: Ratio;
}

/** What a results file holds. */
export interface Results {
  readonly case: string;
  /** The other side, `torch`, or null without one. */
  readonly against: string | null;
  readonly circumstances: Circumstances & { cpuCapability: string };
  readonly versions: Readonly<Record<string, string>>;
  readonly rows: readonly Row[];
}

/** Where the results of a case are kept: bench/results/<case>.json, or <case>.<against>.json. */
export function resultsPath(name: string, against: string | null): string {
  const file = against === null ? `${name}.json` : `${name}.${against}.json`;
  return join(ROOT, 'bench', 'results', file);
}

/** Writes results as prettier would: lists of numbers on one line. */
export function writeResults(results: Results, path: string): void {
  const text = JSON.stringify(results, undefined, 2).replaceAll(
    /\[\s*([^[\]{}]*?)\s*\]/g,
    (_, list: string) => `[${list.replaceAll(/\s+/g, ' ')}]`,
  );
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${text}\n`);
}

/** Reads a file of `writeResults`. */
export function readResults(path: string): Results {
  return JSON.parse(readFileSync(path, 'utf8')) as Results;
}

function shown(value: number, quantity: string): string {
  if (!isRate(quantity)) return String(Math.round(value));
  if (value >= 100) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(1);
}

/** A Markdown table in prettier's form, which is also what the terminal shows. */
export function markdownTable(results: Results): string {
  const unit = unitOf(results.rows[0]?.quantity ?? '');
  const other = results.against;
  const header = ['', `posttrain, ${unit}`];
  if (other !== null) header.push(`${other}, ${unit}`, 'times as fast', 'lowest–highest');
  header.push('peak MiB');
  if (other !== null) header.push(`${other}, peak MiB`);

  const lines = results.rows.map(({ name, quantity, ours, against, ratio }) => {
    const line = [name, shown(ours.median, quantity)];
    if (against && ratio) {
      line.push(shown(against.median, quantity), ratio.median.toFixed(2));
      line.push(`${ratio.lowest.toFixed(2)}–${ratio.highest.toFixed(2)}`);
    }
    line.push(ours.peakRssMib.toLocaleString('en-US'));
    if (against) line.push(against.peakRssMib.toLocaleString('en-US'));
    return line;
  });
  const widths = header.map((title, column) =>
    Math.max(3, title.length, ...lines.map((line) => line[column]?.length ?? 0)),
  );
  const pad = (text: string, column: number): string =>
    column === 0 ? text.padEnd(widths[0] ?? 0) : text.padStart(widths[column] ?? 0);
  const rule = widths.map((width, column) =>
    column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`,
  );
  return [header.map(pad), rule, ...lines.map((line) => line.map(pad))]
    .map((line) => `| ${line.join(' | ')} |`)
    .join('\n');
}

function disturbance(rows: readonly Row[]): string {
  const shares = rows.flatMap(({ ours, against }) => [ours.othersShare, against?.othersShare]);
  const known = shares.filter((share) => typeof share === 'number');
  if (known.length === 0) return '';
  return ` Other programs took at most ${(100 * Math.max(...known)).toFixed(1)} % of the cores’ time.`;
}

/** One sentence that says where the numbers come from. */
export function provenance({ circumstances, versions, rows }: Results): string {
  const { cpu, cores, cpuCapability, date, commit } = circumstances;
  const named = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  const threads = rows[0]?.ours.threads ?? 0;
  return (
    `${cpu}, ${cores} cores, ${cpuCapability}, ${threads} threads; ${named.join(', ')}; commit ${commit}, ` +
    `${date.slice(0, 10)}.${disturbance(rows)}`
  );
}
