import type { Command } from 'commander';
import { withExample } from '../options.js';
import type { CommandContext } from '../program.js';
import { readInputs, type TrainOptions } from '../trainInputs.js';
import { methodCommand, report } from './trainCommand.js';

/** Adds `train prm`. */
export function registerTrainPrm(train: Command, context: CommandContext): void {
  const { stderr } = context.io;
  const prm = methodCommand(
    train,
    'prm',
    'learn to tell right from wrong steps (process reward model), from {prompt, completions, labels}',
  );
  withExample(
    prm,
    'posttrain train prm --model ./sft --data steps.jsonl --eval-data held-out.jsonl --out runs/prm',
    'posttrain train grpo --model ./sft --data problems.jsonl --reward prm:runs/prm/model --out runs/grpo',
  );
  prm.action(async (options: TrainOptions) => {
    const { createPrmRun } = await import('../../runs/index.js');
    const { inputs, config } = await readInputs(options);
    const run = await createPrmRun({ ...inputs, config, progress: stderr });
    report(context, options, await run.train({ progress: stderr }), ({ model }) =>
      [
        `Train with it: posttrain train grpo --reward prm:${model} …`,
        `Judge with it: scoreSteps of 'posttrain'`,
      ].join('\n'),
    );
  });
}
