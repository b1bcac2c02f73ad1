import type { Command } from 'commander';
import { dirname, join } from 'node:path';
import type { ConfigSource } from '../../config/index.js';
import { UsageError } from '../../errors/index.js';
import type { RlhfRun } from '../../runs/index.js';
import { BASE_HELP, collect, withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';
import { stoppedExitCode } from './trainCommand.js';
import { packageFolder } from '../version.js';

interface RlhfOptions {
  readonly model?: string;
  readonly base?: string;
  readonly demonstrations?: readonly string[];
  readonly prompts?: readonly string[];
  readonly preferences?: readonly string[];
  readonly evalPrompts?: readonly string[];
  readonly annotator?: string;
  readonly evalReward?: string;
  readonly example?: boolean;
  readonly out?: string;
  readonly config?: string;
  readonly set?: readonly string[];
  readonly resume?: boolean;
  readonly json?: boolean;
}

/** Adds `train rlhf`. */
export function registerTrainRlhf(train: Command, context: CommandContext): void {
  const command = withJson(
    train
      .command('rlhf')
      .description(
        'the three stages as one: fine-tuning, a reward model of preferences, reinforcement against it (or DPO on them)',
      )
      .option('--model <model>', 'model to start from: a folder, or org/name[@revision] of the Hub')
      .option('--base <model>', BASE_HELP)
      .option('--demonstrations <file>', 'rows to fine-tune on; repeatable', collect)
      .option('--prompts <file>', 'rows {prompt} that are sampled; repeatable', collect)
      .option(
        '--preferences <file>',
        'rows {prompt, chosen, rejected} that people made (posttrain label), instead of an annotator; repeatable',
        collect,
      )
      .option(
        '--eval-prompts <file>',
        'held-out rows {prompt} to compare models on; repeatable',
        collect,
      )
      .option(
        '--annotator <spec>',
        'the reward by which completions are ranked: a file (./reward.ts), a built-in reward, a reward model (model:folder)',
      )
      .option(
        '--eval-reward <spec>',
        'the true reward where it is known: measured, never trained on',
      )
      .option('--example', 'write a small task with a known true reward into --out, and run it')
      .option('--out <folder>', 'run directory, new or (with --resume) of an earlier run')
      .option(
        '--config <file>',
        'settings as YAML or JSON, which may name the inputs too; see `posttrain config rlhf`',
      )
      .option('--set <key=value>', 'one setting, stronger than the file; repeatable', collect)
      .option(
        '--resume',
        'go on at the first stage that is not finished; what is not given is as it was',
      ),
  );
  withExample(
    command,
    'posttrain train rlhf --example --out runs/rlhf',
    'posttrain train rlhf --model ./base --demonstrations demos.jsonl --prompts prompts.jsonl \\\n      --preferences labelled.jsonl --out runs/rlhf --set sft.epochs=1 --set ppo.klCoef=0.1',
    'posttrain train rlhf --config rlhf.yaml --out runs/dpo --set method=dpo',
    'posttrain train rlhf --out runs/rlhf --resume',
  );
  command.action((options: RlhfOptions) => trainRlhf(context, options));
}

async function trainRlhf(context: CommandContext, options: RlhfOptions): Promise<void> {
  const { io } = context;
  const { out, resume = false, json } = options;
  if (out === undefined) throw new UsageError('train: expected --out, the folder of the run.');
  const { createRlhfRun, rlhfReport } = await import('../../runs/index.js');
  const config = await readSettings(options, out);
  const run = await createRlhfRun({ out, resume, config, progress: io.stderr });
  try {
    const result = await run.train({ progress: io.stderr });
    io.out(json === true ? JSON.stringify(result) : rlhfReport(result, named(run)));
    stoppedExitCode(context, result);
  } finally {
    run.dispose();
  }
}

function named({ config: { inputs } }: RlhfRun) {
  const { evalPrompts, evalReward } = inputs;
  return {
    evalPrompts: typeof evalPrompts === 'string' ? evalPrompts : evalPrompts?.[0],
    evalReward: evalReward ?? undefined,
  };
}

async function readSettings(options: RlhfOptions, out: string): Promise<ConfigSource> {
  const { applyOverrides, configFromObject, readConfigFile } =
    await import('../../config/index.js');
  const { withInputs } = await import('../../runs/index.js');
  const { set = [], resume = false, example = false } = options;
  const { model, base, demonstrations, prompts, preferences, evalPrompts, annotator, evalReward } =
    options;
  const given = {
    ...{ model, base, demonstrations, prompts, preferences, evalPrompts, annotator, evalReward },
  };
  if (example && options.config !== undefined) {
    throw new UsageError('train rlhf: expected --example or --config, received both.', {
      hint: 'The example has settings of its own; change them by --set.',
    });
  }
  // A resumed example goes on with what was recorded of it.
  const path = example && !resume ? await writeExample(set, out) : options.config;
  const source = path === undefined ? configFromObject({}, '--set') : await readConfigFile(path);
  return withInputs(applyOverrides(source, set), path === undefined ? '.' : dirname(path), given);
}

/** @returns path of its settings */
async function writeExample(set: readonly string[], out: string): Promise<string> {
  const { applyOverrides, parseConfig, readConfigFile, RlhfConfig } =
    await import('../../config/index.js');
  const { writeRlhfExample } = await import('../../quickstart/rlhfExample.js');
  const settings = join(packageFolder(), 'examples', 'rlhf', 'rlhf.yaml');
  const { seed } = parseConfig(RlhfConfig, applyOverrides(await readConfigFile(settings), set));
  return await writeRlhfExample({ out, seed, settings });
}
