import type { Command } from 'commander';
import { GRPO_PRESETS, grpoPreset } from '../../config/presets.js';
import { startDashboardBeside } from '../dashboardBeside.js';
import { withExample } from '../options.js';
import type { CommandContext } from '../program.js';
import { readInputs, type OnPolicyOptions, type TrainOptions } from '../trainInputs.js';
import { registerPreferences } from './trainPreferences.js';
import { methodCommand, onPolicyCommand, readOnPolicyInputs, report } from './trainCommand.js';
import { registerTrainReward } from './trainReward.js';
import { registerTrainRejection } from './trainRejection.js';
import { registerTrainPrm } from './trainPrm.js';
import { registerTrainRlhf } from './trainRlhf.js';

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

  registerTrainReward(train, context);
  registerTrainPrm(train, context);

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
  registerPreferences(train, context);

  registerTrainRejection(train, context);
  registerTrainRlhf(train, context);
  for (const command of train.commands) withDashboard(command, context);
}

/** Adds `--dashboard`. */
function withDashboard(command: Command, { io }: CommandContext): void {
  command
    .option('--dashboard', 'also show the run in the browser, as long as it goes on')
    .hook('preAction', (called) => {
      const { dashboard, out } = called.opts<{ dashboard?: boolean; out?: string }>();
      // Without --out the command says what is missing.
      if (dashboard === true && out !== undefined)
        startDashboardBeside(out, (text) => void io.stderr.write(text));
    });
}

async function trainGrpo(
  context: CommandContext,
  options: OnPolicyOptions,
  preset: string | undefined,
): Promise<void> {
  const { createGrpoRun } = await import('../../runs/index.js');
  const run = await createGrpoRun(
    await readOnPolicyInputs(
      context,
      options,
      preset === undefined ? undefined : grpoPreset(preset),
    ),
  );
  report(context, options, await run.train({ progress: context.io.stderr }));
}
