/** Puts the tables of bench/results into docs/performance.md. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './machine.js';
import { markdownTable, provenance, readResults, resultsPath } from './results.js';

const BLOCK = /<!-- bench ([\w-]+) ([\w.]+) -->\n[^]*?<!-- end bench -->/g;

/**
 * Replaces everything between `<!-- bench CASE AGAINST -->` and `<!-- end bench -->`; a block without results stays as it
 * is.
 *
 * @returns the document's path, and the commands whose results were missing
 */
export function updateDocument(): { path: string; missing: string[] } {
  const missing: string[] = [];
  const path = join(ROOT, 'docs', 'performance.md');
  const text = readFileSync(path, 'utf8').replaceAll(
    BLOCK,
    (block, name: string, against: string): string => {
      const file = resultsPath(name, against);
      if (!existsSync(file)) {
        missing.push(`npm run bench -- ${name} --against ${against}`);
        return block;
      }
      const results = readResults(file);
      const body = `${markdownTable(results)}\n\n${provenance(results)}`;
      return `<!-- bench ${name} ${against} -->\n\n${body}\n\n<!-- end bench -->`;
    },
  );
  writeFileSync(path, text);
  return { path, missing };
}
