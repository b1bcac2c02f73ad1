/** The three files of a reproduction: a report to read, the numbers, and a plot. Knows no experiment. */
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { gitCommit, versions } from '../runs/index.js';
import { replaceFile } from '../runs/files.js';
import { curvePlot, type Curves } from './plot.js';
import type { Verdict } from './verdict.js';

/** A table of the report. */
export interface Table {
  readonly title: string;
  readonly heads: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** What an experiment found. */
export interface Findings {
  readonly verdicts: readonly Verdict[];
  readonly tables: readonly Table[];
  readonly plot: Curves;
  /** What a reader must know to read the tables. */
  readonly notes: readonly string[];
  /** Everything that was measured, as JSON can hold it. */
  readonly data: unknown;
}

/** Where and with what it was found. */
export interface Circumstances {
  readonly name: string;
  readonly title: string;
  readonly seeds: readonly number[];
  readonly seconds: number;
  readonly sizes: unknown;
}

/** The machine and the program, for whoever compares. */
export async function circumstancesOf() {
  return {
    versions: versions(),
    commit: await gitCommit(),
    machine: {
      processor: cpus()[0]?.model ?? 'unknown',
      cores: availableParallelism(),
      memoryGigabytes: Math.round(totalmem() / 1e9),
    },
  };
}

/** A table in Markdown. `|` in a cell would end it, so that it is escaped. */
export function markdownTable({ heads, rows }: Pick<Table, 'heads' | 'rows'>): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(heads), line(heads.map(() => '---')), ...rows.map(line)].join('\n');
}

/** The report in Markdown: claims first, then what they were judged by. */
export function reproductionReport(
  found: Findings,
  about: Circumstances,
  made: Awaited<ReturnType<typeof circumstancesOf>>,
): string {
  const claims = found.verdicts.map(
    ({ paper, claim, rule, seen, because }) =>
      `The paper claims that ${claim} (${paper}).\n\n**Seen here: ${seen}**, because ${because}.\nRule: ${rule}.`,
  );
  const tables = found.tables.map((table) => `## ${table.title}\n\n${markdownTable(table)}`);
  const { versions: version, commit, machine } = made;
  const notes = [
    ...found.notes,
    `Seeds ${about.seeds.join(', ')}: mean, and in parentheses the range. ${Math.round(about.seconds)} seconds on ${machine.cores} cores (${machine.processor}, ${machine.memoryGigabytes} GB).`,
    `posttrain ${version.posttrain}, libtorch ${version.libtorch}, Node ${version.node}, ${version.platform}, commit ${commit ?? 'unknown'}.`,
  ].map((note) => `- ${note}`);
  const sections = [`# ${about.title}`, ...claims, ...tables, '![](plot.svg)', notes.join('\n')];
  return `${sections.join('\n\n')}\n`;
}

/**
 * Writes report.md, plot.svg and results.json, each whole or not at all.
 *
 * @returns the report
 * @throws IoError if a file cannot be written
 */
export async function writeReproduction(
  out: string,
  found: Findings,
  about: Circumstances,
): Promise<string> {
  const made = await circumstancesOf();
  const report = reproductionReport(found, about, made);
  const { verdicts, data } = found;
  replaceFile(join(out, 'plot.svg'), await curvePlot(found.plot));
  replaceFile(join(out, 'report.md'), report);
  const results = { ...about, ...made, verdicts, data };
  replaceFile(join(out, 'results.json'), `${JSON.stringify(results, null, 2)}\n`);
  return report;
}
