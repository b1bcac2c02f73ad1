import type { Command } from 'commander';
import type { ConfigSource } from '../../config/index.js';
import { UsageError } from '../../errors/index.js';
import type { RunRecord, RunResult } from '../../runs/index.js';
import { collect, withExample, withJson, EXIT_CODES } from '../options.js';
import type { CommandContext } from '../program.js';

/** Options of every `train` command. */
interface TrainOptions {
  readonly model?: string;
  readonly data?: readonly string[];
  readonly evalData?: readonly string[];
  readonly out?: string;
  readonly config?: string;
  readonly set?: readonly string[];
  readonly resume?: boolean;
  readonly json?: boolean;
  readonly reward?: readonly string[];
  readonly rewardWeight?: readonly string[];
}

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

  const grpo = methodCommand(
    train,
    'grpo',
    'reinforce the completions that a reward prefers (GRPO)',
  )
    .option(
      '--reward <spec>',
      'a file (./reward.ts) or a built-in reward: exact-match[:column], numeric-match[:column], format:/regex/, length:N; repeatable',
      collect,
    )
    .option(
      '--reward-weight <name=number>',
      'weight of a reward in the sum, 1 unless set; repeatable',
      collect,
    );
  withExample(
    grpo,
    'posttrain train grpo --model ./sft --data problems.jsonl --reward exact-match --out runs/grpo',
    'posttrain train grpo --model ./sft --data problems.jsonl --reward ./reward.ts --out runs/own \\\n      --set groupSize=16 --set clip.high=0.28',
    'posttrain train grpo --out runs/own --resume',
  );
  grpo.action(async (options: TrainOptions) => {
    const { createGrpoRun } = await import('../../runs/index.js');
    const { inputs, config, record } = await readInputs(options);
    const rewards = options.reward ?? recordedRewards(record);
    const run = await createGrpoRun({
      ...inputs,
      config: await withRewardWeights(config, options.rewardWeight ?? []),
      rewards,
      progress: context.io.stderr,
    });
    report(context, options, await run.train({ progress: context.io.stderr }));
  });
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

interface RunInputs {
  readonly model: string;
  readonly data: readonly string[];
  readonly evalData?: readonly string[] | undefined;
  readonly out: string;
  readonly resume: boolean;
}

/** Inputs as given, and for a resumed run those that it recorded where they are not. */
async function readInputs(
  options: TrainOptions,
): Promise<{ inputs: RunInputs; config: ConfigSource; record: RunRecord | undefined }> {
  const { out, resume = false } = options;
  if (out === undefined) throw new UsageError('train: expected --out, the folder of the run.');
  const { readRunRecord } = await import('../../runs/index.js');
  const record = resume ? readRunRecord(out) : undefined;
  const recordedModel = record?.inputs['model'];
  const model = options.model ?? (typeof recordedModel === 'string' ? recordedModel : undefined);
  const data = options.data ?? recordedFiles(record, 'data');
  if (model === undefined || data === undefined) {
    throw new UsageError('train: expected --model and --data.', {
      hint: 'They may be left out with --resume, where the run knows them.',
    });
  }
  const evalData = options.evalData ?? recordedFiles(record, 'evalData');
  return {
    inputs: { model, data, evalData, out, resume },
    config: await readSettings(options),
    record,
  };
}

async function readSettings({ config, set = [] }: TrainOptions): Promise<ConfigSource> {
  const { applyOverrides, configFromObject, readConfigFile } =
    await import('../../config/index.js');
  const source =
    config === undefined ? configFromObject({}, '--set') : await readConfigFile(config);
  return applyOverrides(source, set);
}

/** `--reward-weight name=0.5` is the setting `rewardWeights.name`; names may hold any character. */
async function withRewardWeights(
  source: ConfigSource,
  texts: readonly string[],
): Promise<ConfigSource> {
  if (texts.length === 0) return source;
  const { parseRewardWeight } = await import('../../rewards/index.js');
  const weights = Object.fromEntries(
    texts.map(parseRewardWeight).map(({ name, weight }) => [name, weight]),
  );
  const before = source.values['rewardWeights'];
  const rewardWeights = Object.assign({}, before, weights);
  return { values: { ...source.values, rewardWeights }, place: (path) => source.place(path) };
}

function recordedFiles(record: RunRecord | undefined, key: string): string[] | undefined {
  const entry = record?.inputs[key];
  if (typeof entry !== 'object' || entry === null || !('files' in entry)) return undefined;
  return Array.isArray(entry.files) ? entry.files.map(String) : undefined;
}

function recordedRewards(record: RunRecord | undefined): string[] {
  const specs = record?.inputs['rewardSpecs'];
  if (Array.isArray(specs)) return specs.map(String);
  throw new UsageError('train grpo: expected --reward.', {
    hint: 'For example --reward exact-match, or --reward ./reward.ts.',
  });
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
