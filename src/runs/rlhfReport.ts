/** The result of a pipeline for a person: stages, the models side by side, what to look at, and what to try next. */
import { formatNumber, formatSeconds } from './progress.js';
import type { RlhfEstimate, RlhfMeasurement, RlhfStageRecord } from './rlhfRecord.js';
import type { RlhfResult } from './rlhfRun.js';

/** What is suggested at the end. */
export interface RlhfInputsNamed {
  /** Held-out prompts, where they are a file. */
  readonly evalPrompts?: string | undefined;
  /** Specification of the true reward, where there is one. */
  readonly evalReward?: string | undefined;
}

/** Lines of text, for standard output. */
export function rlhfReport(result: RlhfResult, inputs: RlhfInputsNamed = {}): string {
  const { state, step, totalSteps, directory, model, stages, measurements, seconds } = result;
  const warnings = stages.flatMap((stage) => stage.warnings);
  return [
    ...stages.map(describeStage),
    ...(warnings.length > 0 ? ['', ...warnings.map((warning) => `Look at this: ${warning}`)] : []),
    ...(measurements === null ? [] : ['', ...table(measurements)]),
    '',
    state === 'finished'
      ? `Finished ${totalSteps} stages; this call took ${seconds.toFixed(1)} s.`
      : `Stopped with ${step} of ${totalSteps} stages finished; everything is saved.`,
    `Run:   ${directory}`,
    `Model: ${model}`,
    ...(state === 'finished' ? next(result, inputs) : ['Go on: add --resume to the same command.']),
  ].join('\n');
}

function describeStage({ folder, state, seconds, numbers }: RlhfStageRecord): string {
  const time = formatSeconds(seconds).padStart(8);
  const told = state === 'finished' ? describeNumbers(numbers) : 'not finished';
  return `${folder.padEnd(14)}${time}  ${told}`;
}

/** What a stage came to, in a few words. */
export function describeNumbers(numbers: Readonly<Record<string, number>>): string {
  const count = (name: string, words: string): string[] => {
    const value = numbers[name];
    return value === undefined ? [] : [`${value.toLocaleString('en-US')} ${words}`];
  };
  const course = (name: string, start: string): string[] => {
    const [value, first] = [numbers[name], numbers[start]];
    if (value === undefined) return [];
    return [
      `${name} ${first === undefined ? '' : `${formatNumber(first)} → `}${formatNumber(value)}`,
    ];
  };
  const { heldOutAccuracy: right, heldOutAccuracyLow: low, heldOutAccuracyHigh: high } = numbers;
  const { accuracyCeiling: ceiling } = numbers;
  return [
    ...count('steps', 'steps'),
    ...count('rankings', 'rankings'),
    ...count('pairs', 'pairs'),
    ...count('heldOutPairs', 'held out'),
    ...course('loss', 'lossAtStart'),
    ...course('reward', 'rewardAtStart'),
    ...(right === undefined
      ? []
      : [
          `right in ${percent(right)} of held-out pairs${low === undefined || high === undefined ? '' : ` (${percent(low)} to ${percent(high)})`}`,
        ]),
    ...(ceiling === undefined ? [] : [`${percent(ceiling)} can be right`]),
  ].join(', ');
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function table(measurements: readonly RlhfMeasurement[]): string[] {
  const rows: [string, (measured: RlhfMeasurement) => string][] = [
    ['true reward', ({ trueReward }) => shown(trueReward)],
    ['  95 % interval', ({ trueReward }) => interval(trueReward)],
    ['score of the reward model', ({ rewardModelScore }) => shown(rewardModelScore)],
    ['  95 % interval', ({ rewardModelScore }) => interval(rewardModelScore)],
    ['KL to the SFT model, nats', ({ klToSft }) => klToSft.toFixed(3).replace(/^-(0\.0+)$/, '$1')],
    ['mean length, tokens', ({ completionLength }) => completionLength.toFixed(2)],
    ['ended by themselves', ({ eosRate }) => `${(100 * eosRate).toFixed(1)} %`],
  ];
  const known = rows.filter(([, show]) => measurements.some((measured) => show(measured) !== ''));
  const line = (name: string, cells: readonly string[]): string =>
    `${name.padEnd(28)}${cells.map((cell) => cell.padStart(18)).join('')}`;
  return [
    line(
      'held-out prompts',
      measurements.map(({ name }) => name),
    ),
    ...known.map(([name, show]) => line(name, measurements.map(show))),
  ];
}

function shown(estimate: RlhfEstimate | null): string {
  return estimate === null ? '' : estimate.value.toFixed(3);
}

function interval(estimate: RlhfEstimate | null): string {
  if (estimate === null) return '';
  return `${estimate.low.toFixed(2)} to ${estimate.high.toFixed(2)}`;
}

function next({ directory, model, stages }: RlhfResult, inputs: RlhfInputsNamed): string[] {
  const { evalPrompts, evalReward } = inputs;
  const hasDpo = stages.some(({ name }) => name === 'dpo');
  return [
    'Next:',
    `  posttrain generate --model ${model} --prompt "…"`,
    ...(evalPrompts === undefined || evalReward === undefined
      ? []
      : [
          `  posttrain eval --model ${model} --data ${evalPrompts} --reward ${evalReward} --samples 8`,
        ]),
    hasDpo
      ? `  posttrain train rlhf --out ${directory} --resume --set method=ppo   # the same preferences with a reward model`
      : `  posttrain train rlhf --out ${directory} --resume --set method=dpo   # the same preferences without a reward model`,
  ];
}
