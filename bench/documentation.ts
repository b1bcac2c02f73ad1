/** Puts the tables of bench/results into docs/performance.md, and the picture of all ratios beside it. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { dataTable, type DataResults } from './dataLoading.js';
import { GROWTH_HEADER, growthLines } from './growth.js';
import { installTable, type InstallResults } from './install.js';
import { ROOT } from './machine.js';
import { PARTS_HEADER, partLines, type PartResults } from './parts.js';
import { ratioPlot } from './ratioPlot.js';
import {
  alignedTable,
  markdownTable,
  provenance,
  readResults,
  resultsPath,
  type Results,
} from './results.js';

const BLOCK = /<!-- bench ([\w-]+) ([\w.]+) -->\n[^]*?<!-- end bench -->/g;
/** What a block says in place of another side where ours is measured alone. */
const ALONE = 'alone';

/**
 * Replaces everything between `<!-- bench CASE AGAINST -->` and `<!-- end bench -->`, AGAINST being `alone` without
 * another side; a block without results stays as it is.
 *
 * @returns the document's path, and the commands whose results were missing
 */
export function updateDocument(): { path: string; missing: string[] } {
  const missing: string[] = [];
  const path = join(ROOT, 'docs', 'performance.md');
  const text = readFileSync(path, 'utf8').replaceAll(
    BLOCK,
    (block, name: string, against: string): string => {
      const other = against === ALONE ? null : against;
      const file = resultsPath(name, other);
      if (!existsSync(file)) {
        missing.push(`npm run bench -- ${name}${other === null ? '' : ` --against ${other}`}`);
        return block;
      }
      const body = OWN_TABLES[name]?.(file) ?? bodyOf(readResults(file));
      return `<!-- bench ${name} ${against} -->\n\n${body}\n\n<!-- end bench -->`;
    },
  );
  writeFileSync(path, text);
  writeFileSync(join(ROOT, 'docs', 'performance-ratios.svg'), ratioPlot(comparisons()));
  return { path, missing };
}

/** Cases whose results have another form than `Results`. */
const OWN_TABLES: Readonly<Record<string, (file: string) => string>> = {
  parts: partsOf,
  data: (file) => dataTable(JSON.parse(readFileSync(file, 'utf8')) as DataResults),
  install: (file) => installTable(JSON.parse(readFileSync(file, 'utf8')) as InstallResults),
};

function bodyOf(results: Results): string {
  return `${tableOf(results)}\n\n${provenance(results)}`;
}

function partsOf(file: string): string {
  const { rows, circumstances } = JSON.parse(readFileSync(file, 'utf8')) as PartResults;
  const { cpu, cores, commit, date } = circumstances;
  const table = alignedTable(PARTS_HEADER, partLines(rows));
  return `${table}\n\n${cpu}, ${cores} cores; commit ${commit}, ${date.slice(0, 10)}.`;
}

function tableOf(results: Results): string {
  if (results.case !== 'growth') return markdownTable(results);
  return alignedTable(GROWTH_HEADER, growthLines(results.rows));
}

/** Begins the names of results of other kinds of machines, which have tables of their own and are not in the picture. */
const OTHER_MACHINE = /^(avx2|zen4)-/;

/** Results files that have another side, by name. */
function comparisons(): Results[] {
  const folder = join(ROOT, 'bench', 'results');
  return readdirSync(folder)
    .filter((name) => /^[\w-]+\.[\w.]+\.json$/.test(name) && !OTHER_MACHINE.test(name))
    .sort()
    .map((name) => readResults(join(folder, name)));
}
