/** The quickstart's result for a person: a table, the reward curve, a few answers, and what to try next. */
import type { QuickstartResult, Snapshot } from './quickstart.js';

/** Lines of text, for standard output. */
export function quickstartReport(result: QuickstartResult): string {
  const { directory, heldOutProblems, seconds } = result;
  return [
    '',
    `${heldOutProblems} problems that were never trained on (seed ${result.seed}):`,
    '',
    ...table(result.before, result.after),
    '',
    'Share of right answers while GRPO trains:',
    '',
    ...plot(result.curve.map(({ reward }) => reward)),
    '',
    'The same problems before and after (answers are written least digit first):',
    '',
    ...examples(result),
    '',
    'Imitation learns the demonstrators’ mistakes with everything else. The right answer is among eight of its samples for',
    `${percent(result.before.passAt8)} of the problems (pass@8), and a rule that says right or wrong is enough to find it there. Groups whose`,
    `completions are all right, or all wrong, teach nothing any more: ${percent(result.curve.at(-1)?.groupsWithoutVariance)} at the end.`,
    '',
    `${seconds.total.toFixed(0)} s: SFT ${seconds.sft.toFixed(0)} s, GRPO ${seconds.grpo.toFixed(0)} s, the rest is measuring.`,
    '',
    `Everything is in ${directory}: data, models, metrics.jsonl and samples.jsonl of both runs.`,
    '',
    'Next:',
    `  npx posttrain generate --model ${directory}/grpo/model --prompt "407+086="`,
    `  npx posttrain eval --model ${directory}/sft/model --data ${directory}/held-out.jsonl --reward exact-match --samples 8 --max-new-tokens 6`,
    `  npx posttrain train grpo --model ${directory}/sft/model --data ${directory}/problems.jsonl --reward exact-match \\`,
    `    --config ${directory}/grpo.yaml --set klCoef=0.04 --out runs/mine`,
    '  npx posttrain config grpo',
    '',
  ].join('\n');
}

function percent(value: number | undefined): string {
  return value === undefined ? '–' : `${(100 * value).toFixed(1)} %`;
}

function table(before: Snapshot, after: Snapshot): string[] {
  const rows: [string, (snapshot: Snapshot) => string][] = [
    ['greedy accuracy', ({ accuracy }) => percent(accuracy)],
    ['pass@1', ({ passAt1 }) => percent(passAt1)],
    ['maj@8', ({ majorityAt8 }) => percent(majorityAt8)],
    ['pass@8', ({ passAt8 }) => percent(passAt8)],
    ['mean length, tokens', ({ completionLength }) => completionLength.toFixed(2)],
    ['KL to the SFT model, nats', ({ klToReference }) => klToReference.toFixed(2)],
  ];
  const line = (name: string, first: string, second: string): string =>
    `  ${name.padEnd(28)}${first.padStart(12)}${second.padStart(12)}`;
  return [
    line('', 'after SFT', 'after GRPO'),
    ...rows.map(([name, show]) => line(name, show(before), show(after))),
  ];
}

const PLOT_ROWS = 8;
const PLOT_COLUMNS = 60;

/** Values from 0 to 1 as columns of dots, steps from left to right. */
export function plot(values: readonly number[]): string[] {
  const columns = Math.min(PLOT_COLUMNS, values.length);
  const means = Array.from({ length: columns }, (_, column) => {
    const from = Math.floor((column * values.length) / columns);
    const to = Math.floor(((column + 1) * values.length) / columns);
    const part = values.slice(from, Math.max(to, from + 1));
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
  const rows = Array.from({ length: PLOT_ROWS }, (_, index) => {
    const row = PLOT_ROWS - 1 - index;
    const label = row === PLOT_ROWS - 1 ? '100 %' : row === 0 ? '0 %' : '';
    const cells = means.map((mean) =>
      Math.min(PLOT_ROWS - 1, Math.floor(mean * PLOT_ROWS)) === row ? '•' : ' ',
    );
    return `  ${label.padStart(5)} │${cells.join('')}`;
  });
  return [...rows, `        └${'─'.repeat(columns)}`, `         step 1 to ${values.length}`];
}

function examples(result: QuickstartResult): string[] {
  const mark = (text: string, answer: string): string => `${text} ${text === answer ? '✓' : '✗'}`;
  return result.examples.map(
    ({ prompt, answer, before, after }) =>
      `  ${prompt.padEnd(10)}${mark(before, answer).padEnd(10)}→  ${mark(after, answer)}`,
  );
}
