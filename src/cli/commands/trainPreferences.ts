/** `train` commands of methods that learn from preferences: pairs, single judgements, and pairs sampled on the way. */
import type { Command } from 'commander';
import type { ConfigSource } from '../../config/index.js';
import type * as runs from '../../runs/index.js';
import type { ProgressStream, RunResult, TrainOptions as LoopOptions } from '../../runs/index.js';
import { withExample } from '../options.js';
import type { CommandContext } from '../program.js';
import {
  readInputs,
  type OnlineDpoOptions,
  type RunInputs,
  type TrainOptions,
} from '../trainInputs.js';
import { methodCommand, onPolicyCommand, readOnPolicyInputs, report } from './trainCommand.js';

type Runs = typeof runs;

/** What a run of any of these methods is created from. */
type PreferenceInputs = RunInputs & { config: ConfigSource; progress: ProgressStream };
interface Trainable {
  train(options: LoopOptions): Promise<RunResult>;
}

const METHODS: readonly {
  readonly name: string;
  readonly description: string;
  readonly example: string;
  readonly create: (runs: Runs, inputs: PreferenceInputs) => Promise<Trainable>;
}[] = [
  {
    name: 'dpo',
    description: 'prefer the chosen completion of every pair, against a frozen reference (DPO)',
    example:
      '--model ./sft --data preferences.jsonl --out runs/dpo --set beta=0.1 --set losses.ipo=1',
    create: ({ createDpoRun }, inputs) => createDpoRun(inputs),
  },
  {
    name: 'kto',
    description: 'learn from completions that are good or bad by themselves (KTO)',
    example: '--model ./sft --data judged.jsonl --out runs/kto',
    create: ({ createKtoRun }, inputs) => createKtoRun(inputs),
  },
  {
    name: 'orpo',
    description: 'fine-tune and prefer at once, by odds ratios, without a reference (ORPO)',
    example: '--model ./base --data preferences.jsonl --out runs/orpo',
    create: ({ createOrpoRun }, inputs) => createOrpoRun(inputs),
  },
  {
    name: 'simpo',
    description: 'prefer by mean log-probabilities with a margin, without a reference (SimPO)',
    example: '--model ./sft --data preferences.jsonl --out runs/simpo --set gamma=1.6',
    create: ({ createSimpoRun }, inputs) => createSimpoRun(inputs),
  },
  {
    name: 'cpo',
    description: 'prefer against a uniform reference and keep the chosen likely (CPO)',
    example: '--model ./sft --data preferences.jsonl --out runs/cpo',
    create: ({ createCpoRun }, inputs) => createCpoRun(inputs),
  },
];

/** Adds the commands. */
export function registerPreferences(train: Command, context: CommandContext): void {
  const { stderr: progress } = context.io;
  for (const { name, description, example, create } of METHODS) {
    const command = withExample(
      methodCommand(train, name, description),
      `posttrain train ${name} ${example}`,
    );
    command.action(async (options: TrainOptions) => {
      const module = await import('../../runs/index.js');
      const { inputs, config } = await readInputs(options);
      const run = await create(module, { ...inputs, config, progress });
      report(context, options, await run.train({ progress }));
    });
  }
  const online = withExample(
    onPolicyCommand(
      train,
      'online-dpo',
      'sample two completions per prompt, let rewards or a judge compare them, and learn from the pair (online DPO)',
    ).option(
      '--judge <file>',
      'in place of --reward: a file (./judge.ts) whose function compares two completions, ({ prompt, completions, row }) => 0, 1 or null',
    ),
    'posttrain train online-dpo --model ./sft --data prompts.jsonl --reward model:./reward-model --out runs/online',
    'posttrain train online-dpo --model ./sft --data prompts.jsonl --judge ./judge.ts --out runs/judged',
  );
  online.action(async (options: OnlineDpoOptions) => {
    const { createOnlineDpoRun } = await import('../../runs/index.js');
    const run = await createOnlineDpoRun(await readOnPolicyInputs(context, options));
    report(context, options, await run.train({ progress }));
  });
}
