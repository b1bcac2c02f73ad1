/** A browser that the checks of the page drive. Nothing is downloaded: Debian's Chromium will do. */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { chromium, type Browser } from 'playwright-core';
import { UsageError } from '../../src/errors/index.js';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];

/**
 * Path of a Chromium: `POSTTRAIN_CHROMIUM`, or the first of its usual names in `PATH`.
 *
 * @throws UsageError where there is none
 */
export function findChromium(env: NodeJS.ProcessEnv = process.env): string {
  const named = env['POSTTRAIN_CHROMIUM'];
  if (named !== undefined && named !== '') return named;
  const folders = (env['PATH'] ?? '').split(delimiter);
  const found = folders
    .flatMap((folder) => NAMES.map((name) => join(folder, name)))
    .find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new UsageError('The checks of the dashboard’s page need a Chromium, and none is in PATH.', {
    hint: 'Debian and Ubuntu: apt-get install chromium; elsewhere set POSTTRAIN_CHROMIUM to its path.',
  });
}

/** Starts it without a window. */
export function launchChromium(): Promise<Browser> {
  // Its sandbox cannot start where checks run as root, in containers mostly. It opens this machine's own pages only.
  const args = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  return chromium.launch({ executablePath: findChromium(), args });
}
