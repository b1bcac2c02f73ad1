import type { Command } from 'commander';
import { UsageError } from '../../errors/index.js';
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
  readonly seed: number;
  readonly numCompletions: number;
  readonly json?: boolean;
}

type Prompt = string | readonly ChatMessage[];

/** Adds `generate`. */
export function registerGenerate(program: Command, { io }: CommandContext): void {
  const command = program
    .command('generate')
    .description('sample completions from a model')
    .requiredOption('--model <folder>', 'model folder with its tokenizer')
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
    .option('--num-completions <n>', 'completions per prompt', asPositive, 1)
    .option('--seed <n>', 'seed of the draws', asCount, 0)
    .addHelpText(
      'after',
      '\nWithout --prompt and --prompts the prompt is read from standard input. Settings that are not given come from\nthe generation_config.json of the model, where it has them.',
    );
  withExample(
    withJson(withPlacement(command)),
    'posttrain generate --model runs/grpo/model --prompt "407+086=" --temperature 0',
  );
  command.action(async (options: GenerateCommandOptions) => {
    const prompts = await readPrompts(options, io.readStdin);
    const { generate } = await import('../../generation/index.js');
    const { readGenerationConfig } = await import('../../models/index.js');
    const { defaultMaxNewTokens, openModel } = await import('../placement.js');
    const recommended = readGenerationConfig(options.model);
    const { model, tokenizer } = await openModel(options);
    const longest = Math.max(
      ...prompts.map((prompt) =>
        typeof prompt === 'string'
          ? tokenizer.encode(prompt).length
          : tokenizer.encodeChat(prompt, { addGenerationPrompt: true }).length,
      ),
    );
    const completions = await generate({
      model,
      tokenizer,
      prompts,
      maxNewTokens:
        options.maxNewTokens ?? recommended?.maxNewTokens ?? defaultMaxNewTokens(model, longest),
      temperature: options.temperature ?? recommended?.temperature ?? 1,
      topK: options.topK ?? recommended?.topK ?? 0,
      topP: options.topP ?? recommended?.topP ?? 1,
      minP: options.minP ?? recommended?.minP ?? 0,
      repetitionPenalty: options.repetitionPenalty ?? recommended?.repetitionPenalty ?? 1,
      stop: options.stop ?? [],
      seed: options.seed,
      numCompletions: options.numCompletions,
    });
    const results = completions.map((completion) => ({
      prompt: prompts[completion.promptIndex] ?? '',
      ...completion,
    }));
    if (options.json === true) {
      io.out(JSON.stringify({ completions: results }));
      return;
    }
    for (const { prompt, text, finishReason, tokenIds } of results) {
      const shown = typeof prompt === 'string' ? prompt : JSON.stringify(prompt);
      const alone = results.length === 1;
      if (!alone) io.out(`> ${shown}`);
      io.out(text);
      io.stderr.write(`(${tokenIds.length} tokens, ${finishReason})\n`);
    }
  });
}

async function readPrompts(
  options: GenerateCommandOptions,
  readStdin: () => Promise<string | undefined>,
): Promise<Prompt[]> {
  const prompts: Prompt[] = [...(options.prompt ?? [])];
  if (options.prompts !== undefined) {
    const { readRows, validateRows } = await import('../../data/index.js');
    const rows = await readRows(options.prompts);
    validateRows(rows, ['prompt-only', 'prompt-completion']);
    for (const { values } of rows) prompts.push(values['prompt'] as Prompt);
  }
  if (prompts.length === 0) {
    const text = await readStdin();
    if (text === undefined || text === '') {
      throw new UsageError('generate: expected --prompt, --prompts or text on standard input.');
    }
    prompts.push(text.replace(/\r?\n$/, ''));
  }
  if (options.chat !== true) return prompts;
  return prompts.map((prompt) =>
    typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt,
  );
}
