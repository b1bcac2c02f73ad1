/** Results as a file and as a table. Knows no process. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Cell } from './jobs.js';
import { ROOT, type Circumstances } from './machine.js';
import { isRate, unitOf, type Ratio, type Side } from './statistics.js';

/** One line of the table. */
export interface Row extends Pick<Cell, 'name' | 'quantity' | 'job' | 'axis'> {
  readonly ours: Side;
  readonly against?: Side;
  readonly ratio?: Ratio;
  /** Tokens that both sides had in each step, prompts included; of cells that train. */
  readonly tokensPerStep?: number;
  /** What the machine can do at best, measured right after the cell, and the shares of it that the two sides reach. */
  readonly ceiling?: {
    readonly unit: 'GFLOP/s' | 'GB/s';
    readonly rate: number;
    readonly ours: number;
    readonly against?: number;
  };
  /** The commit that was measured, where rows of one file are of several. */
  readonly commit?: string;
  /** How long the cell took, all processes of both sides. */
  readonly seconds?: number;
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

/**
 * Writes results as prettier would: lists of numbers on one line. Paths in the checkout are written from its top, so that a
 * file says nothing of the machine's folders.
 */
export function writeResults(results: Results, path: string): void {
  const text = JSON.stringify(
    results,
    (_, value: unknown) =>
      typeof value === 'string' && value.startsWith(`${ROOT}/`)
        ? value.slice(ROOT.length + 1)
        : value,
    2,
  ).replaceAll(/\[\s*([^[\]{}]*?)\s*\]/g, (_, list: string) => `[${list.replaceAll(/\s+/g, ' ')}]`);
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

/** A column: its title, and what it shows of a row. */
type Column = readonly [title: string, cell: (row: Row) => string | undefined];

const percent = (share: number | undefined): string | undefined =>
  share === undefined ? undefined : `${(100 * share).toFixed(0)} %`;

/** Seconds of one step. */
const perStep = ({ tokensPerStep }: Row, side: Side | undefined): string | undefined =>
  tokensPerStep === undefined || side === undefined
    ? undefined
    : (tokensPerStep / side.median).toPrecision(3);

function columnsOf({ rows, against: other }: Results): Column[] {
  const unit = unitOf(rows[0]?.quantity ?? '');
  const count = (value: number | undefined) => value?.toLocaleString('en-US');
  return [
    ['', ({ name }) => name],
    [`posttrain, ${unit}`, ({ ours, quantity }) => shown(ours.median, quantity)],
    [`${other}, ${unit}`, ({ against, quantity }) => against && shown(against.median, quantity)],
    ['posttrain, s per step', (row) => perStep(row, row.ours)],
    [`${other}, s per step`, (row) => perStep(row, row.against)],
    ['times as fast', ({ ratio }) => ratio?.median.toFixed(2)],
    [
      'lowest–highest',
      ({ ratio }) => ratio && `${ratio.lowest.toFixed(2)}–${ratio.highest.toFixed(2)}`,
    ],
    ['share of the machine', ({ ceiling }) => percent(ceiling?.ours)],
    [`${other}, share`, ({ ceiling }) => percent(ceiling?.against)],
    // Where the work is done by processes that the measuring one starts, its own memory says nothing.
    ['peak MiB', ({ ours, job }) => (job.kind === 'startup' ? undefined : count(ours.peakRssMib))],
    [`${other}, peak MiB`, ({ against }) => count(against?.peakRssMib)],
    [
      'memory',
      ({ ours, against }) => against && `${(ours.peakRssMib / against.peakRssMib).toFixed(2)}×`,
    ],
  ];
}

/** A Markdown table in prettier's form, which is also what the terminal shows. Columns that no row fills are left out. */
export function markdownTable(results: Results): string {
  const columns = columnsOf(results).filter(([, cell]) =>
    results.rows.some((row) => cell(row) !== undefined),
  );
  const header = columns.map(([title]) => title);
  const lines = results.rows.map((row) => columns.map(([, cell]) => cell(row) ?? ''));
  return alignedTable(header, lines);
}

/** A Markdown table in prettier's form; all columns but the first are numbers. */
export function alignedTable(
  header: readonly string[],
  lines: readonly (readonly string[])[],
): string {
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

function ceilings(rows: readonly Row[]): string {
  const found = rows.flatMap(({ ceiling }) => ceiling ?? []);
  return (['GFLOP/s', 'GB/s'] as const)
    .map((unit) => {
      const rates = found.filter((each) => each.unit === unit).map(({ rate }) => rate);
      if (rates.length === 0) return '';
      const what = unit === 'GB/s' ? 'Memory read at' : 'Matrix products ran at';
      const [low, high] = [Math.min(...rates), Math.max(...rates)].map((rate) =>
        rate.toPrecision(3),
      );
      return ` ${what} ${low === high ? low : `${low} to ${high}`} ${unit}.`;
    })
    .join('');
}

function priority(scheduling: string | undefined): string {
  if (scheduling === undefined || scheduling === 'normal') return '';
  return ` All processes of both sides had real-time priority (${scheduling}).`;
}

/** One sentence that says where the numbers come from. */
export function provenance({ circumstances, versions, rows }: Results): string {
  const { cpu, cores, cpuCapability, date, commit } = circumstances;
  const named = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  const threads = rows[0]?.ours.threads ?? 0;
  const all = [...new Set(rows.map((row) => row.commit ?? commit))];
  const commits = `commit${all.length > 1 ? 's' : ''} ${all.join(', ')}`;
  return (
    `${cpu}, ${cores} cores, ${cpuCapability}, ${threads} threads; ${named.join(', ')}; ${commits}, ` +
    `${date.slice(0, 10)}.${disturbance(rows)}${ceilings(rows)}${priority(circumstances.scheduling)}`
  );
}
