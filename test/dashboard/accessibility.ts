/** What axe-core, which looks for what hinders people with a screen reader or weak eyes, finds on a page. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Page } from 'playwright-core';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** One fault as a line: the rule, what it asks for, and the elements that break it. */
export async function hindrancesOn(page: Page): Promise<string[]> {
  // Evaluated, since the page's policy forbids scripts that are not its own.
  await page.evaluate(AXE);
  return page.evaluate<string[]>(`
    axe
      .run(document, { resultTypes: ['violations'] })
      .then(({ violations }) =>
        violations.map(({ id, help, nodes }) =>
          id + ': ' + help + ': ' + nodes.slice(0, 4).map(({ html }) => html.slice(0, 200)).join(' | '),
        ),
      )`);
}
