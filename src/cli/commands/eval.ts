import { appendFileSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { Row } from '../../data/index.js';
import { IoError, UsageError, counted } from '../../errors/index.js';
import type { Estimate, Evaluation, Perplexity } from '../../eval/index.js';
import type { Decoder } from '../../models/index.js';
import type { Tokenizer } from '../../tokenizers/index.js';
import {
  asCount,
  asNumber,
  asPositive,
  asPositives,
  collect,
  withExample,
  withJson,
  withPlacement,
} from '../options.js';
import type { CommandContext } from '../program.js';
import { givenOptions, refuseIdle } from './evalRefusals.js';

/** Options of `eval`. */
export interface EvalOptions {
  readonly model: string;
  readonly data: readonly string[];
  readonly split?: string;
  readonly dataConfig?: string;
  readonly device: string;
  readonly dtype: string;
  readonly base?: string;
  readonly reward?: readonly string[];
  readonly rewardWeight?: readonly string[];
  readonly threshold?: number;
  readonly samples: number;
  readonly k?: readonly number[];
  readonly temperature: number;
  readonly topP: number;
  readonly maxNewTokens?: number;
  readonly answer?: string;
  readonly environment?: string;
  readonly maxTurns?: number;
  readonly limit?: number;
  readonly seed: number;
  readonly completions?: string;
  readonly against?: string;
  readonly judge?: string;
  readonly json?: boolean;
}

/** Adds `eval`. */
export function registerEval(program: Command, context: CommandContext): void {
  const command = program
    .command('eval')
    .description(
      'measure accuracy, pass@k and maj@k by rewards, the win rate against another model, or perplexity without either; of a reward model, how it agrees with preferences or labels of steps',
    )
    .requiredOption(
      '--model <model>',
      'language model, reward model or process reward model: a folder, or org/name[@revision] of the Hub',
    )
    .requiredOption(
      '--data <path>',
      'rows to measure on: a file (JSONL, JSON, CSV or Parquet), a pattern, or a data-set folder; repeatable',
      collect,
    )
    .option('--split <name>', 'split of a data-set folder (test)')
    .option('--data-config <name>', 'configuration of a data-set folder that has several')
    .option(
      '--reward <spec>',
      'what makes a completion correct: a file, a built-in reward, a reward model (model:folder) or a process reward model (prm:folder), as for train grpo; repeatable',
      collect,
    )
    .option('--reward-weight <name=number>', 'weight of a reward in the sum; repeatable', collect)
    .option(
      '--threshold <x>',
      'sum of rewards from which a completion is correct (default: 1; none with a reward model, whose scores have no such value by themselves)',
      asNumber,
    )
    .option('--samples <n>', 'samples per problem for pass@k and maj@k', asCount, 0)
    .option(
      '--k <list>',
      'the k of pass@k and maj@k, such as 1,4,8 (default: 1 and --samples)',
      asPositives,
    )
    .option('--temperature <t>', 'temperature of the samples', asNumber, 1)
    .option('--top-p <p>', 'nucleus of the samples', asNumber, 1)
    .option(
      '--max-new-tokens <n>',
      'most tokens of a completion (default: what fits, at most 256)',
      asPositive,
    )
    .option(
      '--answer <regex>',
      'where the answer stands in a completion, for maj@k: its first group, last match',
    )
    .option(
      '--environment <spec>',
      'what answers the model between its turns: calculator, or a file (./environment.ts)',
    )
    .option(
      '--max-turns <n>',
      'most turns of the model with an environment (default: 4)',
      asPositive,
    )
    .option(
      '--against <model or column>',
      'measure how often completions win against those of another model, or against the texts of a column; by --reward or --judge, greedy or with --samples pairs per prompt',
    )
    .option(
      '--judge <file>',
      'with --against, in place of --reward: a file (./judge.ts) whose function compares two completions, ({ prompt, completions, row }) => 0, 1 or null',
    )
    .option('--limit <n>', 'only the first n rows', asPositive)
    .option('--seed <n>', 'seed of samples and intervals', asCount, 0)
    .option(
      '--completions <file>',
      'write the judged completions (greedy; all pairs with --against) there, as JSONL',
    );
  withExample(
    withJson(withPlacement(command)),
    'posttrain eval --model runs/grpo/model --data test.jsonl --reward exact-match --samples 8',
    'posttrain eval --model runs/sft/model --data held-out.jsonl',
    'posttrain eval --model runs/dpo/model --data prompts.jsonl --against ./sft --reward model:runs/reward/model',
    'posttrain eval --model runs/reward/model --data preferences.jsonl',
    'posttrain eval --model runs/prm/model --data steps.jsonl',
  );
  command.action(async (given: EvalOptions) => {
    const { isScalarModelFolder, isStepModelFolder, openModelFolder } =
      await import('../../models/index.js');
    const onLine = givenOptions(command);
    const options = { ...given, model: await openModelFolder('--base', given.model, given.base) };
    const { readRows } = await import('../../data/index.js');
    const { openModel } = await import('../placement.js');
    const { split, dataConfig: subset, limit } = options;
    const selection = { split, subset, defaultSplit: 'test' };
    const rows = (await readRows(options.data, selection)).slice(0, limit);
    if (isScalarModelFolder(options.model)) {
      const { measureRewardModel } = await import('./evalRewardModel.js');
      await measureRewardModel(context, { ...options, given: onLine }, rows);
      return;
    }
    if (isStepModelFolder(options.model)) {
      const { measureStepModel } = await import('./evalRewardModel.js');
      await measureStepModel(context, { ...options, given: onLine }, rows);
      return;
    }
    if (options.against === undefined && options.judge !== undefined)
      throw new UsageError('eval: expected --against with --judge, which compares, received none.');
    if (options.against !== undefined) {
      const { refuseOthers } = await import('./evalAgainst.js');
      refuseOthers({ ...options, against: options.against });
    }
    refuseIdle(onLine, {
      reward: options.reward !== undefined,
      against: options.against !== undefined,
      samples: options.samples,
    });
    if (options.reward && options.against === undefined) {
      const { validateRows } = await import('../../data/index.js');
      const { requiredColumns } = await import('../../runs/index.js');
      validateRows(rows, ['prompt-only', 'prompt-completion'], requiredColumns(options.reward));
    }
    if (options.completions !== undefined) requireWritable(options.completions);
    const subject = { rows, ...(await openModel(options)) };
    if (options.against !== undefined) {
      const { measureWinRate } = await import('./evalAgainst.js');
      await measureWinRate(context, { ...options, against: options.against }, subject);
    } else if (options.reward) await measureAccuracy(context, options, options.reward, subject);
    else await measurePerplexity(context, options, subject);
  });
}

/** What is measured, and on what. */
export interface Subject {
  readonly rows: readonly Row[];
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
}

async function measureAccuracy(
  { io }: CommandContext,
  options: EvalOptions,
  specs: readonly string[],
  { rows, model, tokenizer }: Subject,
): Promise<void> {
  const { forVocabulary, tokenizePrompts } = await import('../../data/index.js');
  const { evaluate } = await import('../../eval/index.js');
  const { Progress } = await import('../../runs/index.js');
  const { openRewards } = await import('./evalRewardModel.js');
  const { rewards, rewardModels } = await openRewards(specs, options.rewardWeight ?? [], {
    model,
    tokenizer,
  });
  const { threshold = rewardModels.length === 0 ? 1 : undefined } = options;
  if (threshold === undefined && options.samples > 0) {
    throw new UsageError(
      'eval: expected --threshold with --samples, because a reward model scores the completions.',
      { hint: 'pass@k and maj@k count completions as correct from a threshold on.' },
    );
  }
  for (const reward of rewards) reward.prepare?.(rows.map(({ values }) => values));
  const { loadEnvironment } = await import('../../environments/index.js');
  const environment =
    options.environment === undefined ? undefined : await loadEnvironment(options.environment);
  const { maxTurns = 4 } = options;
  const { defaultMaxNewTokens } = await import('../placement.js');
  const room = Math.max(1, model.config.maxPositionEmbeddings - (options.maxNewTokens ?? 1));
  const { prompts, report } = tokenizePrompts(
    rows,
    forVocabulary(tokenizer, model.config.vocabSize),
    { maxPromptLength: room },
  );
  if (report.dropped > 0)
    io.stderr.write(
      `Left out: ${counted(report.dropped, 'prompt')} of more than ${counted(room, 'token')}.\n`,
    );
  const longest = Math.max(...prompts.map(({ inputIds }) => inputIds.length));
  const total = prompts.length * (1 + options.samples);
  const progress = new Progress(io.stderr, { label: 'eval', total, unit: 'completion' });
  const evaluation = await evaluate({
    model,
    tokenizer,
    prompts,
    rewards,
    rewardModels,
    // Without one nothing that depends on it is told.
    threshold: threshold ?? Infinity,
    environment,
    maxTurns,
    // With an environment every turn needs room.
    maxNewTokens:
      options.maxNewTokens ??
      Math.max(1, Math.floor(defaultMaxNewTokens(model, longest) / (environment ? maxTurns : 1))),
    samples: options.samples,
    k: options.k,
    temperature: options.temperature,
    topP: options.topP,
    seed: options.seed,
    answerOf: options.answer === undefined ? undefined : answerReader(options.answer),
    onProgress: (finished) => progress.update(finished),
  });
  progress.end();
  const unscoredBy = evaluation.failures.map(
    ({ reward, file, line, reason }) =>
      `reward ${reward} for ${file ?? '?'}:${line ?? '?'} ${reason}`,
  );
  tellFailures(io, unscoredBy);
  tellFailures(io, evaluation.environmentFailures);

  const { completions, failures, environmentFailures, ...measured } = evaluation;
  const { accuracy: _, ...others } = measured;
  const result = threshold === undefined ? others : measured;
  if (options.completions !== undefined) {
    const lines = completions.map(({ isCorrect, ...completion }) => {
      const told = threshold === undefined ? completion : { ...completion, isCorrect };
      return `${JSON.stringify(told)}\n`;
    });
    writeResult(options.completions, lines.join(''));
  }
  const unscored = failures.length + environmentFailures.length;
  const summary = { ...result, unscored };
  io.out(options.json === true ? JSON.stringify(summary) : describe(result));
}

/** Reads answers by a pattern: the first group of its last match, the whole match without groups, else all text. */
function answerReader(source: string): (completion: string) => string {
  let pattern: RegExp;
  try {
    pattern = new RegExp(source, 'g');
  } catch (error) {
    throw new UsageError(
      `--answer: expected a regular expression, but ${error instanceof Error ? error.message : String(error)}.`,
    );
  }
  return (completion) => {
    const last = [...completion.matchAll(pattern)].at(-1);
    return (last?.[1] ?? last?.[0] ?? completion).trim();
  };
}

const MOST_FAILURES_TOLD = 5;

/** Writes the first sentences about what failed, and how many more there are. */
export function tellFailures({ stderr }: CommandContext['io'], failures: readonly string[]): void {
  for (const sentence of failures.slice(0, MOST_FAILURES_TOLD)) stderr.write(`${sentence}\n`);
  const more = failures.length - MOST_FAILURES_TOLD;
  if (more > 0) stderr.write(`… and ${more} more that failed.\n`);
}

/** Before anything is sampled that could not be kept. @throws IoError where the file cannot be written */
function requireWritable(path: string): void {
  const isNew = !existsSync(path);
  tryWriting(path, () => appendFileSync(path, ''));
  if (isNew) rmSync(path);
}

/** @throws IoError where the file cannot be written */
export function writeResult(path: string, text: string): void {
  tryWriting(path, () => writeFileSync(path, text));
}

function tryWriting(path: string, write: () => void): void {
  try {
    write();
  } catch (error) {
    throw new IoError(
      `${path} cannot be written: ${error instanceof Error ? error.message : String(error)}.`,
    );
  }
}

async function measurePerplexity(
  { io }: CommandContext,
  options: EvalOptions,
  { rows, model, tokenizer }: Subject,
): Promise<void> {
  const { detectFormat, forVocabulary, tokenizeForSft, validateRows } =
    await import('../../data/index.js');
  const { perplexity } = await import('../../eval/index.js');
  if (detectFormat(rows).name === 'prompt-only') {
    throw new UsageError('eval: expected --reward for rows with prompts alone.', {
      hint: 'For example --reward exact-match, which compares with the column answer.',
    });
  }
  validateRows(rows, ['language-modeling', 'prompt-completion']);
  const { examples, report } = tokenizeForSft(
    rows,
    forVocabulary(tokenizer, model.config.vocabSize),
    {
      maxLength: model.config.maxPositionEmbeddings,
      appendEos: tokenizer.eosTokenId !== undefined,
    },
  );
  const result: Perplexity = perplexity({ model, examples });
  if (options.json === true) io.out(JSON.stringify({ rows: report.examples, ...result }));
  else {
    io.out(
      `perplexity ${result.perplexity.toFixed(4)}   loss ${result.loss.toFixed(4)} nats   (${counted(result.tokens, 'token')} of ${counted(report.examples, 'row')})`,
    );
  }
}

function describe(
  result: Omit<Evaluation, 'completions' | 'failures' | 'environmentFailures' | 'accuracy'> &
    Partial<Pick<Evaluation, 'accuracy'>>,
): string {
  const { problems, accuracy, greedy, sampled } = result;
  const lines = [
    `${problems} problems; 95 % intervals over problems`,
    ...(accuracy ? [row('accuracy (greedy)', percent(accuracy))] : []),
    row('mean reward', greedy.reward.toFixed(4)),
    row('mean length', `${greedy.completionLength.toFixed(1)} tokens`),
    row('ended by itself', `${(100 * greedy.eosRate).toFixed(1)} %`),
  ];
  if (greedy.unscored > 0) lines.push(row('unscored', `${greedy.unscored} (counted as wrong)`));
  if (sampled) {
    lines.push(`${sampled.samples} samples each at temperature ${sampled.temperature}`);
    for (const [k, estimate] of Object.entries(sampled.passAtK))
      lines.push(row(`pass@${k}`, percent(estimate)));
    for (const [k, estimate] of Object.entries(sampled.majorityAtK))
      if (k !== '1') lines.push(row(`maj@${k}`, percent(estimate)));
    lines.push(row('mean reward', sampled.reward.toFixed(4)));
  }
  return lines.join('\n');
}

function row(name: string, value: string): string {
  return `  ${name.padEnd(18)} ${value}`;
}

function percent({ value, low, high }: Estimate): string {
  const digits = (part: number): string => (100 * part).toFixed(1);
  return `${digits(value).padStart(5)} %  [${digits(low)}, ${digits(high)}]`;
}
