/** Puts the tables of bench/results into docs/performance.md. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UsageError } from '../src/errors/index.js';
import { ROOT } from './machine.js';
import { markdownTable, provenance, readResults, resultsPath } from './results.js';

const BLOCK = /<!-- bench (\w+) (\w+) -->\n[^]*?<!-- end bench -->/g;

/**
 * Replaces everything between `<!-- bench CASE AGAINST -->` and `<!-- end bench -->`.
 *
 * @returns the document's path
 * @throws UsageError when a block's results are missing
 */
export function updateDocument(): string {
  const path = join(ROOT, 'docs', 'performance.md');
  const text = readFileSync(path, 'utf8').replaceAll(
    BLOCK,
    (_, name: string, against: string): string => {
      const file = resultsPath(name, against);
      if (!existsSync(file)) {
        throw new UsageError(`bench: expected results in ${file}, found none.`, {
          hint: `Run \`npm run bench -- ${name} --against ${against}\` first.`,
        });
      }
      const results = readResults(file);
      const body = `${markdownTable(results)}\n\n${provenance(results)}`;
      return `<!-- bench ${name} ${against} -->\n\n${body}\n\n<!-- end bench -->`;
    },
  );
  writeFileSync(path, text);
  return path;
}
