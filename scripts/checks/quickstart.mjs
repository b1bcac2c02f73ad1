/**
 * Runs the quickstart as the README tells a user to, and looks at what it claims to have reached.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../setup.mjs';
import { runProgram } from '../setup/process.mjs';

const TIMEOUT_SECONDS = 20 * 60;
/** Greedy accuracy on held-out problems: what imitation reaches at most, and what GRPO reaches at least. */
const BEFORE_AT_MOST = 0.6;
const AFTER_AT_LEAST = 0.9;

/** @returns {Promise<string | undefined>} What is wrong, or undefined. */
export async function checkQuickstart() {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-quickstart-'));
  try {
    const args = [
      join(ROOT, 'scripts/run.mjs'),
      'quickstart',
      '--json',
      '--out',
      join(folder, 'run'),
    ];
    const options = { cwd: folder, timeoutSeconds: TIMEOUT_SECONDS };
    const result = await runProgram(process.execPath, args, options);
    if (result.timedOut) return `It did not end within ${TIMEOUT_SECONDS / 60} minutes.`;
    if (result.code !== 0) return result.output.trim().split('\n').slice(-40).join('\n');
    const line = result.stdout.trim().split('\n').at(-1) ?? '';
    const { before, after, seconds } = JSON.parse(line);
    if (before.accuracy <= BEFORE_AT_MOST && after.accuracy >= AFTER_AT_LEAST && seconds > 0)
      return undefined;
    return `Held-out accuracy went from ${before.accuracy} to ${after.accuracy}; expected from at most ${BEFORE_AT_MOST} to at least ${AFTER_AT_LEAST}.`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
