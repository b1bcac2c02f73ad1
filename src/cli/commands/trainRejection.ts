import type { Command } from 'commander';
import { REJECTION_PRESETS, rejectionPreset } from '../../config/rejectionPresets.js';
import { withExample } from '../options.js';
import type { CommandContext } from '../program.js';
import type { OnPolicyOptions } from '../trainInputs.js';
import { readOnPolicyInputs, report, scoringCommand, tryIt } from './trainCommand.js';

/** Adds `train rejection` and the names of its presets. */
export function registerTrainRejection(train: Command, context: CommandContext): void {
  const command = scoringCommand(
    train,
    'rejection',
    'fine-tune on the best of several completions, once or again and again',
  ).option('--preset <name>', 'raft or expert-iteration; see `posttrain config`');
  withExample(
    command,
    'posttrain train rejection --model ./sft --data problems.jsonl --reward exact-match --out runs/rejection',
    'posttrain train rejection --model ./sft --data prompts.jsonl --reward model:./reward-model --out runs/best \\\n      --set samplesPerPrompt=16 --set iterations=3 --set sft.learningRate=1e-5',
    'posttrain train rejection --out runs/rejection --resume',
  );
  command.action((options: OnPolicyOptions & { preset?: string }) =>
    trainRejection(context, options, options.preset),
  );
  for (const { name, summary } of Object.values(REJECTION_PRESETS)) {
    const preset = scoringCommand(train, name, summary);
    withExample(
      preset,
      `posttrain train ${name} --model ./sft --data problems.jsonl --reward exact-match --out runs/${name}`,
    );
    preset.action((options: OnPolicyOptions) => trainRejection(context, options, name));
  }
}

async function trainRejection(
  context: CommandContext,
  options: OnPolicyOptions,
  name: string | undefined,
): Promise<void> {
  const preset = name === undefined ? undefined : rejectionPreset(name);
  const { createRejectionRun } = await import('../../runs/index.js');
  const { environment: _none, ...inputs } = await readOnPolicyInputs(context, options, preset);
  const run = await createRejectionRun(inputs);
  try {
    const result = await run.train({ progress: context.io.stderr });
    report(context, options, result, tryIt, 'iteration');
  } finally {
    run.dispose();
  }
}
