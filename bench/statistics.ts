/** Numbers from rounds and pairs. */
import type { WorkerReport } from './jobs.js';

/** The middle value; the mean of the two in the middle when their number is even. NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

/** One side of one cell. */
export interface Side {
  /** Of the medians of all processes. */
  readonly median: number;
  /** Of all rounds of all processes. */
  readonly best: number;
  /** Median of the rounds of each process. */
  readonly processes: readonly number[];
  /** The largest of all processes. */
  readonly peakRssMib: number;
  readonly threads: number;
  /** The largest share of all cores' time that other programs took while one of the processes ran; null if unknown. */
  readonly othersShare: number | null;
}

/** How many times as fast ours is, per pair of processes that ran one after the other. */
export interface Ratio {
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
}

/** Whether more is better: of a rate, but not of a duration. */
export function isRate(quantity: string): boolean {
  return quantity.endsWith('/s');
}

/** What the numbers of a quantity count; what is no rate is a duration. */
export function unitOf(quantity: string): string {
  if (isRate(quantity)) return quantity;
  return quantity.endsWith(', ms') ? 'ms' : 'ns per call';
}

/** Rounded to what a reader can tell apart: four significant digits. */
export function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

/** A process's report, and how much of the machine it did not have. */
export interface Measurement extends WorkerReport {
  readonly othersShare: number | null;
}

/** @param quantity the one of the cell */
export function summarise(reports: readonly Measurement[], quantity: string): Side {
  const rounds = reports.map((report) => report.rounds[quantity] ?? []);
  const best = isRate(quantity) ? Math.max(...rounds.flat()) : Math.min(...rounds.flat());
  const processes = rounds.map(median);
  return {
    median: rounded(median(processes)),
    best: rounded(best),
    processes: processes.map(rounded),
    peakRssMib: Math.round(Math.max(...reports.map((report) => report.peakRssBytes)) / 2 ** 20),
    threads: reports[0]?.threads ?? 0,
    othersShare: largest(reports.map((report) => report.othersShare)),
  };
}

/** Null when one of the values is. */
function largest(values: readonly (number | null)[]): number | null {
  return values.reduce<number | null>(
    (most, value) => (most === null || value === null ? null : Math.max(most, value)),
    0,
  );
}

/** Pairs by position: ours[i] ran right before against[i]. */
export function ratioOf(ours: Side, against: Side, quantity: string): Ratio {
  const ratios = ours.processes.map((value, index) => {
    const other = against.processes[index] ?? NaN;
    return isRate(quantity) ? value / other : other / value;
  });
  return {
    median: rounded(median(ratios)),
    lowest: rounded(Math.min(...ratios)),
    highest: rounded(Math.max(...ratios)),
  };
}
