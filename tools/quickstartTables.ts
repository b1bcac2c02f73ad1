/**
 * Runs the quickstart for seeds 0, 1 and 2 and writes their numbers into README.md and docs/quickstart.md, between
 * `<!-- quickstart table -->` (or `results`) and the blank line after the table. `npx tsx
 * tools/quickstartTables.ts`, on a machine that does nothing else; a few minutes.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { ValueRangeError } from '../src/errors/index.js';
import type { QuickstartResult, Snapshot } from '../src/quickstart/quickstart.js';
import { packageRoot } from '../src/torch/installation.js';

/** What `quickstart --json` prints. */
type Printed = Omit<QuickstartResult, 'seconds'> & {
  readonly seconds: number;
  readonly phaseSeconds: QuickstartResult['seconds'];
};

const ROOT = packageRoot();
const folder = mkdtempSync(join(tmpdir(), 'quickstart-tables-'));
const percent = (value: number | undefined): string => `${(100 * (value ?? NaN)).toFixed(1)} %`;

const results = [0, 1, 2].map((seed): Printed => {
  const args = [join(ROOT, 'scripts/run.mjs'), 'quickstart', '--json', '--seed', String(seed)];
  const out = execFileSync(process.execPath, [...args, '--out', join(folder, String(seed))], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  });
  return JSON.parse(out.trim().split('\n').at(-1) ?? '') as Printed;
});
rmSync(folder, { recursive: true, force: true });

/** Replaces the table that follows `marker` and a blank line. */
function replaceTable(file: string, marker: string, lines: readonly string[]): void {
  const path = join(ROOT, file);
  const text = readFileSync(path, 'utf8');
  const start = text.indexOf(marker);
  if (start === -1) throw new ValueRangeError(`quickstartTables: expected ${marker} in ${file}.`);
  const from = start + marker.length;
  const rest = text.slice(from).replace(/^\n+(\|[^\n]*\n)*/, '');
  writeFileSync(
    path,
    `${text.slice(0, from)}\n\n${lines.join('\n')}\n\n${rest.replace(/^\n+/, '')}`,
  );
}

const [first] = results as [Printed, Printed, Printed];
const row = (name: string, show: (snapshot: Snapshot) => string): string =>
  `| ${name} | ${show(first.before)} | ${show(first.after)} |`;
replaceTable('README.md', '<!-- quickstart table -->', [
  '| | after SFT | after GRPO |',
  '|---|---|---|',
  row('greedy accuracy', ({ accuracy }) => percent(accuracy)),
  row('pass@1', ({ passAt1 }) => percent(passAt1)),
  row('maj@8', ({ majorityAt8 }) => percent(majorityAt8)),
  row('pass@8', ({ passAt8 }) => percent(passAt8)),
  row('mean length, tokens', ({ completionLength }) => completionLength.toFixed(2)),
  row('KL to the SFT model, nats', ({ klToReference }) => klToReference.toFixed(2)),
]);

const arrow = (result: Printed, show: (snapshot: Snapshot) => string): string =>
  `${show(result.before)} → ${show(result.after)}`;
const at = ({ curve }: Printed, step: number): string => percent(curve[step - 1]?.accuracy);
replaceTable('docs/quickstart.md', '<!-- quickstart results -->', [
  '| seed | greedy accuracy | after 25, 50, 75 steps | pass@1 | maj@8 | pass@8 | KL, nats | groups without variance, first → last step | seconds (SFT, GRPO, all) |',
  '|---|---|---|---|---|---|---|---|---|',
  ...results.map((result) =>
    [
      '',
      result.seed,
      arrow(result, ({ accuracy }) => percent(accuracy)),
      `${at(result, 25)}, ${at(result, 50)}, ${at(result, 75)}`,
      arrow(result, ({ passAt1 }) => percent(passAt1)),
      arrow(result, ({ majorityAt8 }) => percent(majorityAt8)),
      arrow(result, ({ passAt8 }) => percent(passAt8)),
      result.after.klToReference.toFixed(2),
      `${percent(result.curve[0]?.groupsWithoutVariance)} → ${percent(result.curve.at(-1)?.groupsWithoutVariance)}`,
      `${result.phaseSeconds.sft.toFixed(0)}, ${result.phaseSeconds.grpo.toFixed(0)}, ${result.seconds.toFixed(0)}`,
      '',
    ]
      .join(' | ')
      .trim(),
  ),
]);
console.log(`Written, on ${cpus().length} × ${cpus()[0]?.model ?? 'an unknown processor'}.`);
