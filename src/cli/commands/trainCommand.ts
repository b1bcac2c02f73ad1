/** What every `train` command has in common: its options, what a resumed run recorded, what is said at the end. */
import type { Command } from 'commander';
import { overPreset, type Preset } from '../../config/presets.js';
import type { RunRecord, RunResult } from '../../runs/index.js';
import { BASE_HELP, collect, EXIT_CODES, withJson } from '../options.js';
import type { CommandContext } from '../program.js';
import {
  readInputs,
  recordedEnvironment,
  recordedEvalRewards,
  recordedJudge,
  recordedRewards,
  withRewardWeights,
  type OnlineDpoOptions,
  type TrainOptions,
} from '../trainInputs.js';

/** Inputs of a method that samples and scores; for a resumed run what it recorded where it is not given. */
export async function readOnPolicyInputs(
  { io }: CommandContext,
  options: OnlineDpoOptions,
  preset?: Preset<Readonly<Record<string, unknown>>>,
) {
  const { inputs, config, record } = await readInputs(options);
  const given = await withRewardWeights(config, options.rewardWeight ?? []);
  const judge = options.judge ?? recordedJudge(record);
  return {
    ...inputs,
    // A resumed run goes on with what it recorded, which the preset was part of.
    config: preset === undefined || record !== undefined ? given : overPreset(preset, given),
    rewards: options.reward ?? rewardsWithout(judge, record),
    evalRewards: options.evalReward ?? recordedEvalRewards(record),
    ...(judge !== undefined && { judge }),
    environment: options.environment ?? recordedEnvironment(record),
    progress: io.stderr,
  };
}

/** With a judge there need not be any. */
function rewardsWithout(judge: string | undefined, record: RunRecord | undefined): string[] {
  return judge === undefined ? recordedRewards(record) : [];
}

/** Adds the command of a method that samples and scores, perhaps in several turns. */
export function onPolicyCommand(train: Command, name: string, description: string): Command {
  return scoringCommand(train, name, description)
    .option(
      '--eval-reward <spec>',
      'what held-out completions are scored by, a file or a built-in reward: the true reward, where training has a model of it (default: the --reward that are no reward models); repeatable',
      collect,
    )
    .option(
      '--environment <spec>',
      'what answers the model between its turns: calculator, or a file (./environment.ts)',
    );
}

/** Adds the command of a method that samples and scores. */
export function scoringCommand(train: Command, name: string, description: string): Command {
  return methodCommand(train, name, description)
    .option(
      '--reward <spec>',
      'a file (./reward.ts), a reward model (model:folder), a process reward model (prm:folder, prm-min:folder, prm-last:folder, prm-steps:folder) or a built-in reward: exact-match[:column], numeric-match[:column], format:/regex/, length:N, bleu, rouge-l, cider-d; repeatable',
      collect,
    )
    .option(
      '--reward-weight <name=number>',
      'weight of a reward in the sum, 1 unless set; repeatable',
      collect,
    );
}

/** Adds the command of a method. */
export function methodCommand(train: Command, name: string, description: string): Command {
  return withJson(
    train
      .command(name)
      .description(description)
      .option('--model <model>', 'model to start from: a folder, or org/name[@revision] of the Hub')
      .option('--base <model>', BASE_HELP)
      .option(
        '--data <path>',
        'training rows: a file (JSONL, JSON, CSV or Parquet), a pattern, a data-set folder, or org/name of the Hub; repeatable',
        collect,
      )
      .option('--eval-data <path>', 'held-out rows to measure on; repeatable', collect)
      .option('--split <name>', 'split of a data-set folder to train on (train)')
      .option('--eval-split <name>', 'split of a data-set folder to measure on')
      .option('--data-config <name>', 'configuration of a data-set folder that has several')
      .option('--out <folder>', 'run directory, new or (with --resume) of an earlier run')
      .option('--config <file>', `settings as YAML or JSON; see \`posttrain config ${name}\``)
      .option('--set <key=value>', 'one setting, stronger than the file; repeatable', collect)
      .option('--resume', 'go on with the run in --out; what is not given is as it was'),
  );
}

/** How a run ended, whatever it was. */
type Ended = Omit<RunResult, 'checkpoint'>;

/**
 * Says how a run ended, and sets the exit code of one that was stopped.
 *
 * @param next what one may do with the model of a finished run
 * @param unit what the run counts
 */
export function report(
  { io, setExitCode }: CommandContext,
  { json }: TrainOptions,
  result: Ended,
  next: (result: Ended) => string = tryIt,
  unit = 'step',
): void {
  if (json === true) io.out(JSON.stringify(result));
  else io.out(describeResult(result, next, unit));
  stoppedExitCode({ setExitCode }, result);
}

/** Sets the exit code of a run that was stopped. */
export function stoppedExitCode(
  { setExitCode }: Pick<CommandContext, 'setExitCode'>,
  result: Pick<Ended, 'state' | 'stoppedBy'>,
): void {
  if (result.state === 'stopped')
    setExitCode(result.stoppedBy === 'SIGTERM' ? EXIT_CODES.SIGTERM : EXIT_CODES.SIGINT);
}

/** What one may do with a model that writes. */
export function tryIt({ model }: Pick<RunResult, 'model'>): string {
  return `Try it: posttrain generate --model ${model} --prompt "…"`;
}

function describeResult(result: Ended, next: (result: Ended) => string, unit: string): string {
  const { state, step, totalSteps, directory, model, seconds } = result;
  const time = `${seconds.toFixed(1)} s`;
  return state === 'finished'
    ? `Finished ${totalSteps} ${unit}${totalSteps === 1 ? '' : 's'} in ${time}.\nRun:   ${directory}\nModel: ${model}\n${next(result)}`
    : `Stopped after ${unit} ${step} of ${totalSteps}; everything is saved.\nRun:   ${directory}\nModel: ${model}\nGo on: add --resume to the same command.`;
}
