import { Option, type Command } from 'commander';
import { UsageError, counted } from '../../errors/index.js';
import type { GenerateOptions } from '../../generation/index.js';
import type { ChatMessage } from '../../tokenizers/index.js';
import {
  asCount,
  asNumber,
  asPositive,
  collect,
  withExample,
  withJson,
  withPlacement,
} from '../options.js';
import type { CommandContext } from '../program.js';

interface GenerateCommandOptions {
  readonly model: string;
  readonly device: string;
  readonly dtype: string;
  readonly base?: string;
  readonly prompt?: readonly string[];
  readonly prompts?: string;
  readonly chat?: boolean;
  readonly maxNewTokens?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly stop?: readonly string[];
  readonly memoryCheck: 'refuse' | 'warn';
  readonly seed: number;
  readonly numCompletions?: number;
  readonly bestOf?: number;
  readonly reward?: readonly string[];
  readonly rewardWeight?: readonly string[];
  readonly json?: boolean;
}

/** What to complete, and what rewards know of it. */
interface Prompt {
  readonly text: string | readonly ChatMessage[];
  readonly row: Readonly<Record<string, unknown>>;
}

/** Adds `generate`. */
export function registerGenerate(program: Command, context: CommandContext): void {
  const command = program
    .command('generate')
    .description('sample completions from a model')
    .requiredOption('--model <model>', 'folder of a model, or org/name[@revision] of the Hub')
    .option('--prompt <text>', 'text to complete; repeatable', collect)
    .option('--prompts <file>', 'rows with a column prompt: JSONL, JSON or CSV')
    .option('--chat', 'take each prompt as what a user says, by the chat template')
    .option(
      '--max-new-tokens <n>',
      'most tokens of a completion (default: what fits, at most 256)',
      asPositive,
    )
    .option('--temperature <t>', '0 takes the most likely token (default: 1)', asNumber)
    .option('--top-k <k>', 'only the k most likely tokens', asCount)
    .option('--top-p <p>', 'only the most likely tokens that make up p', asNumber)
    .option('--min-p <p>', 'only tokens at least p times as likely as the most likely', asNumber)
    .option('--repetition-penalty <x>', 'above 1 makes repeated tokens less likely', asNumber)
    .option('--stop <text>', 'text before which a completion ends; repeatable', collect)
    .option('--num-completions <n>', 'completions per prompt (default: 1)', asPositive)
    .option(
      '--best-of <n>',
      'of n completions per prompt the one that --reward scores highest',
      asPositive,
    )
    .option(
      '--reward <spec>',
      'what scores for --best-of: a reward model (model:folder), a process reward model (prm:folder), a file or a built-in reward, as for train grpo; repeatable',
      collect,
    )
    .option('--reward-weight <name=number>', 'weight of a reward in the sum; repeatable', collect)
    .option('--seed <n>', 'seed of the draws', asCount, 0)
    .addOption(
      new Option('--memory-check <what>', 'where the completions do not fit into memory')
        .choices(['refuse', 'warn'])
        .default('refuse'),
    )
    .addHelpText(
      'after',
      '\nWithout --prompt and --prompts the prompt is read from standard input. Settings that are not given come from\nthe generation_config.json of the model, where it has them. Rewards see the columns of --prompts.',
    );
  withExample(
    withJson(withPlacement(command)),
    'posttrain generate --model runs/grpo/model --prompt "407+086=" --temperature 0',
    'posttrain generate --model runs/sft/model --prompts problems.jsonl --best-of 16 --reward model:./reward-model',
  );
  command.action(async (options: GenerateCommandOptions) => {
    checkOptions(options);
    const prompts = await readPrompts(options, context.io.readStdin);
    const settings = await openSettings(options, prompts);
    try {
      if (options.bestOf === undefined) {
        await printCompletions(context, options, settings);
        return;
      }
      const { printBestOf } = await import('./bestOf.js');
      await printBestOf(context, { ...options, n: options.bestOf }, prompts, settings);
    } finally {
      settings.model.dispose();
    }
  });
}

function checkOptions(options: GenerateCommandOptions): void {
  const { bestOf, reward, rewardWeight, numCompletions } = options;
  if (bestOf === undefined && (reward ?? rewardWeight) !== undefined) {
    throw new UsageError('generate: expected --best-of with --reward, received --reward alone.', {
      hint: 'For example --best-of 16. To score completions without choosing, use `posttrain eval`.',
    });
  }
  if (bestOf !== undefined && reward === undefined) {
    throw new UsageError('generate: expected --reward with --best-of, which chooses by it.', {
      hint: 'For example --reward model:./reward-model.',
    });
  }
  if (bestOf !== undefined && numCompletions !== undefined) {
    throw new UsageError(
      'generate: expected either --best-of or --num-completions, received both.',
      { hint: 'With --json, --best-of prints all completions with their scores.' },
    );
  }
}

/** The model, and how it is sampled: as said, else as its generation_config.json recommends. */
async function openSettings(
  given: GenerateCommandOptions,
  prompts: readonly Prompt[],
): Promise<GenerateOptions> {
  const { openModelFolder, readGenerationConfig, tokenizerFolderOf } =
    await import('../../models/index.js');
  const options = { ...given, model: await openModelFolder('--base', given.model, given.base) };
  const { loadTokenizer } = await import('../../tokenizers/index.js');
  const { requireMemory } = await import('../../runs/index.js');
  const { recommendedSampling } = await import('../../generation/index.js');
  const { defaultMaxNewTokens, describeModel, openModel } = await import('../placement.js');
  const recommended = readGenerationConfig(options.model);
  const tokenizer = await loadTokenizer(tokenizerFolderOf(options.model));
  const longest = Math.max(
    ...prompts.map(({ text }) =>
      typeof text === 'string'
        ? tokenizer.encode(text).length
        : tokenizer.encodeChat(text, { addGenerationPrompt: true }).length,
    ),
  );
  const { config, placed } = describeModel(options);
  const maxNewTokens =
    options.maxNewTokens ?? recommended?.maxNewTokens ?? defaultMaxNewTokens({ config }, longest);
  await requireMemory(
    { dtype: placed.dtype, microBatchTokens: 1, memoryCheck: options.memoryCheck },
    {
      models: [{ from: options.model, isTrained: false, hasLmHead: true }],
      ...{ device: placed.device, update: null },
      rollout: {
        rows: prompts.length * (options.bestOf ?? options.numCompletions ?? 1),
        tokens: longest + maxNewTokens,
      },
    },
    null, // what is asked for is the text; a refusal says the rest
  );
  const { model } = await openModel(options);
  return {
    model,
    tokenizer,
    prompts: prompts.map(({ text }) => text),
    maxNewTokens,
    ...recommendedSampling(options, recommended),
    stop: options.stop ?? [],
    seed: options.seed,
  };
}

async function printCompletions(
  { io }: CommandContext,
  { json, numCompletions = 1 }: GenerateCommandOptions,
  settings: GenerateOptions,
): Promise<void> {
  const { generate } = await import('../../generation/index.js');
  const completions = await generate({ ...settings, numCompletions });
  const results = completions.map((completion) => ({
    prompt: settings.prompts[completion.promptIndex] ?? '',
    ...completion,
  }));
  if (json === true) {
    io.out(JSON.stringify({ completions: results }));
    return;
  }
  for (const { prompt, text, finishReason, tokenIds } of results) {
    const shown = typeof prompt === 'string' ? prompt : JSON.stringify(prompt);
    const alone = results.length === 1;
    if (!alone) io.out(`> ${shown}`);
    io.out(text);
    io.stderr.write(`(${counted(tokenIds.length, 'token')}, ${finishReason})\n`);
  }
}

async function readPrompts(
  options: GenerateCommandOptions,
  readStdin: () => Promise<string | undefined>,
): Promise<Prompt[]> {
  const prompts: Prompt[] = (options.prompt ?? []).map((text) => ({ text, row: {} }));
  const needed =
    options.reward === undefined
      ? []
      : (await import('../../runs/index.js')).requiredColumns(options.reward);
  const [column] = needed;
  if (column !== undefined && (prompts.length > 0 || options.prompts === undefined)) {
    throw new UsageError(
      `generate: expected rows with the column ${JSON.stringify(column)}, which a reward reads, received a prompt alone.`,
      { hint: 'Give the rows as a file: --prompts problems.jsonl.' },
    );
  }
  if (options.prompts !== undefined) {
    const { readRows, validateRows } = await import('../../data/index.js');
    const rows = await readRows(options.prompts);
    validateRows(rows, ['prompt-only', 'prompt-completion'], needed);
    for (const { values } of rows)
      prompts.push({ text: values['prompt'] as Prompt['text'], row: values });
  }
  if (prompts.length === 0) {
    const text = await readStdin();
    if (text === undefined || text === '') {
      throw new UsageError('generate: expected --prompt, --prompts or text on standard input.');
    }
    prompts.push({ text: text.replace(/\r?\n$/, ''), row: {} });
  }
  if (options.chat !== true) return prompts;
  return prompts.map(({ text, row }) => ({
    text: typeof text === 'string' ? [{ role: 'user', content: text }] : text,
    row,
  }));
}
