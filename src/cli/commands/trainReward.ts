import type { Command } from 'commander';
import { collect, withExample } from '../options.js';
import type { CommandContext } from '../program.js';
import { readInputs, recordedFiles, type TrainOptions } from '../trainInputs.js';
import { methodCommand, report } from './trainCommand.js';

interface RewardOptions extends TrainOptions {
  readonly referenceData?: readonly string[];
}

/** Adds `train reward`. */
export function registerTrainReward(train: Command, context: CommandContext): void {
  const { stderr } = context.io;
  const command = methodCommand(
    train,
    'reward',
    'learn a score from pairs of completions of which one was preferred (a reward model)',
  ).option(
    '--reference-data <file>',
    'rows {prompt, completion} whose mean score is to be 0 after training: demonstrations; repeatable',
    collect,
  );
  withExample(
    command,
    'posttrain train reward --model runs/sft/model --data preferences.jsonl --eval-data held-out.jsonl --out runs/reward',
    'posttrain train ppo --model runs/sft/model --data prompts.jsonl --reward model:runs/reward/model --out runs/ppo',
  );
  command.action(async (options: RewardOptions) => {
    const { createRewardRun } = await import('../../runs/index.js');
    const { inputs, config, record } = await readInputs(options);
    const referenceData = options.referenceData ?? recordedFiles(record, 'referenceData');
    const run = await createRewardRun({ ...inputs, referenceData, config, progress: stderr });
    report(context, options, await run.train({ progress: stderr }), ({ model }) =>
      [
        `Measure it: posttrain eval --model ${model} --data held-out.jsonl`,
        `Train with it: posttrain train ppo --reward model:${model} …`,
      ].join('\n'),
    );
  });
}
