import type { Command } from 'commander';
import { GRPO_PRESETS, grpoPreset, overPreset } from '../../config/presets.js';
import type { RunResult } from '../../runs/index.js';
import { collect, withExample, withJson, EXIT_CODES } from '../options.js';
import type { CommandContext } from '../program.js';
import {
  readInputs,
  recordedEnvironment,
  recordedRewards,
  withRewardWeights,
  type OnPolicyOptions,
  type TrainOptions,
} from '../trainInputs.js';

/** Adds `train` with a command per method. */
export function registerTrain(program: Command, context: CommandContext): void {
  const train = program.command('train').description('train a model by one of the methods');

  withExample(
    train,
    'posttrain train grpo --model ./sft --data problems.jsonl --reward exact-match --out runs/grpo',
  );

  const sft = methodCommand(train, 'sft', 'imitate texts or completions of prompts');
  withExample(
    sft,
    'posttrain train sft --model ./base --data train.jsonl --out runs/sft --set epochs=3',
  );
  sft.action(async (options: TrainOptions) => {
    const { createSftRun } = await import('../../runs/index.js');
    const { inputs, config } = await readInputs(options);
    const run = await createSftRun({ ...inputs, config, progress: context.io.stderr });
    report(context, options, await run.train({ progress: context.io.stderr }));
  });

  const grpo = onPolicyCommand(
    train,
    'grpo',
    'reinforce the completions that a reward prefers (GRPO and its family)',
  ).option(
    '--preset <name>',
    'a method of the family: dapo, gspo, rloo, …; see `posttrain config`',
  );
  withExample(
    grpo,
    'posttrain train grpo --model ./sft --data problems.jsonl --reward exact-match --out runs/grpo',
    'posttrain train grpo --model ./sft --data problems.jsonl --reward ./reward.ts --out runs/own \\\n      --preset dapo --set groupSize=8 --set clip.high=0.28',
    'posttrain train grpo --out runs/own --resume',
  );
  grpo.action((options: OnPolicyOptions & { preset?: string }) =>
    trainGrpo(context, options, options.preset),
  );
  for (const { name, summary } of Object.values(GRPO_PRESETS)) {
    if (name === 'grpo') continue;
    const command = onPolicyCommand(train, name, summary);
    withExample(
      command,
      `posttrain train ${name} --model ./sft --data problems.jsonl --reward exact-match --out runs/${name}`,
    );
    command.action((options: OnPolicyOptions) => trainGrpo(context, options, name));
  }

  const ppo = onPolicyCommand(
    train,
    'ppo',
    'reinforce with a value model (PPO with policy, reference, reward and value model)',
  );
  withExample(
    ppo,
    'posttrain train ppo --model ./sft --data prompts.jsonl --reward model:./reward-model --out runs/ppo',
    'posttrain train ppo --model ./sft --data problems.jsonl --reward exact-match --out runs/ppo \\\n      --set valueModel.kind=sharedTrunk',
  );
  ppo.action(async (options: OnPolicyOptions) => {
    const { createPpoRun } = await import('../../runs/index.js');
    const run = await createPpoRun(await readOnPolicyInputs(context, options));
    report(context, options, await run.train({ progress: context.io.stderr }));
  });
}

async function trainGrpo(
  context: CommandContext,
  options: OnPolicyOptions,
  preset: string | undefined,
): Promise<void> {
  const { createGrpoRun } = await import('../../runs/index.js');
  const run = await createGrpoRun(await readOnPolicyInputs(context, options, preset));
  report(context, options, await run.train({ progress: context.io.stderr }));
}

async function readOnPolicyInputs(
  { io }: CommandContext,
  options: OnPolicyOptions,
  preset?: string,
) {
  const { inputs, config, record } = await readInputs(options);
  const given = await withRewardWeights(config, options.rewardWeight ?? []);
  return {
    ...inputs,
    // A resumed run goes on with what it recorded, which the preset was part of.
    config:
      preset === undefined || record !== undefined ? given : overPreset(grpoPreset(preset), given),
    rewards: options.reward ?? recordedRewards(record),
    environment: options.environment ?? recordedEnvironment(record),
    progress: io.stderr,
  };
}

function onPolicyCommand(train: Command, name: string, description: string): Command {
  return methodCommand(train, name, description)
    .option(
      '--reward <spec>',
      'a file (./reward.ts), a reward model (model:folder) or a built-in reward: exact-match[:column], numeric-match[:column], format:/regex/, length:N, bleu, rouge-l, cider-d; repeatable',
      collect,
    )
    .option(
      '--reward-weight <name=number>',
      'weight of a reward in the sum, 1 unless set; repeatable',
      collect,
    )
    .option(
      '--environment <spec>',
      'what answers the model between its turns: calculator, or a file (./environment.ts)',
    );
}

function methodCommand(train: Command, name: string, description: string): Command {
  return withJson(
    train
      .command(name)
      .description(description)
      .option('--model <folder>', 'model to start from, with its tokenizer')
      .option('--data <file>', 'training rows: JSONL, JSON or CSV; repeatable', collect)
      .option('--eval-data <file>', 'held-out rows to measure on; repeatable', collect)
      .option('--out <folder>', 'run directory, new or (with --resume) of an earlier run')
      .option('--config <file>', `settings as YAML or JSON; see \`posttrain config ${name}\``)
      .option('--set <key=value>', 'one setting, stronger than the file; repeatable', collect)
      .option('--resume', 'go on with the run in --out; what is not given is as it was'),
  );
}

function report(
  { io, setExitCode }: CommandContext,
  { json }: TrainOptions,
  result: RunResult,
): void {
  if (json === true) io.out(JSON.stringify(result));
  else io.out(describeResult(result));
  if (result.state === 'stopped')
    setExitCode(result.stoppedBy === 'SIGTERM' ? EXIT_CODES.SIGTERM : EXIT_CODES.SIGINT);
}

function describeResult({ state, step, totalSteps, directory, model, seconds }: RunResult): string {
  const time = `${seconds.toFixed(1)} s`;
  return state === 'finished'
    ? `Finished ${totalSteps} steps in ${time}.\nRun:   ${directory}\nModel: ${model}\nTry it: posttrain generate --model ${model} --prompt "…"`
    : `Stopped after step ${step} of ${totalSteps}; everything is saved.\nRun:   ${directory}\nModel: ${model}\nGo on: add --resume to the same command.`;
}
