import { Option, type Command } from 'commander';
import { UsageError, counted } from '../../errors/index.js';
import type { LabelMode, LabelResult } from '../../labeling/index.js';
import {
  asCount,
  asNumber,
  asPositive,
  collect,
  EXIT_CODES,
  withExample,
  withJson,
  withPlacement,
} from '../options.js';
import type { CommandContext } from '../program.js';

interface LabelCommandOptions {
  readonly model?: string;
  readonly data?: readonly string[];
  readonly out: string;
  readonly device: string;
  readonly dtype: string;
  readonly base?: string;
  readonly completions?: number;
  readonly temperature?: number;
  readonly maxNewTokens?: number;
  readonly seed?: number;
  readonly labeler?: string;
  readonly mode?: LabelMode;
  readonly resume?: boolean;
  readonly json?: boolean;
}

/** Adds `label`. */
export function registerLabel(program: Command, { io, setExitCode }: CommandContext): void {
  const command = program
    .command('label')
    .description('compare completions of a model, and write preferences to train on')
    .option('--model <model>', 'folder of a model, or org/name[@revision] of the Hub')
    .option('--data <file>', 'rows with a column prompt: JSONL, JSON or CSV; repeatable', collect)
    .requiredOption('--out <file>', 'preferences to write, such as preferences.jsonl')
    .option('--completions <n>', 'completions per prompt, 2 to 9 (default: 4)', asPositive)
    .option('--temperature <t>', 'temperature of the samples (default: 1)', asNumber)
    .option(
      '--max-new-tokens <n>',
      'most tokens of a completion (default: what fits, at most 256)',
      asPositive,
    )
    .option('--seed <n>', 'seed of samples and of their order on the screen (default: 0)', asCount)
    .option('--labeler <name>', 'who answers; written into every row')
    .addOption(
      new Option(
        '--mode <mode>',
        'rank all completions, or choose the best one (default: rank)',
      ).choices(['rank', 'choose']),
    )
    .option('--resume', 'go on with the session of --out; what is not given is as it was')
    .addHelpText(
      'after',
      [
        '\nPrompts are shown on standard error. On a terminal: 2>1=4>3 and Enter ranks (= is a tie), s skips, u undoes,',
        'r shows the prompt again, q saves and quits, ? helps. Where standard input is no terminal, one answer is read',
        'per line, in the same words: 2>1=4>3, s, u or q; "12: 2>1" is an answer to prompt 12 and to no other. A line',
        'that is no answer ends the command; everything before it is saved.',
        '\nThe session is kept in <out>.session.jsonl beside the preferences.',
      ].join('\n'),
    );
  withExample(
    withJson(withPlacement(command)),
    'posttrain label --model runs/sft/model --data prompts.jsonl --out preferences.jsonl --labeler ann',
    'posttrain label --out preferences.jsonl --resume',
  );
  command.action(async ({ json, ...given }: LabelCommandOptions) => {
    if (io.stdin.isTTY === true && io.stderr.isTTY !== true) {
      throw new UsageError(
        'label: expected standard error to be a terminal, received a file or pipe.',
        {
          hint: 'What is to be compared is shown there. Results may be redirected: they go to standard output.',
        },
      );
    }
    const { label, sessionInputs } = await import('../../labeling/index.js');
    const { openModel } = await import('../placement.js');
    const before = given.resume === true ? sessionInputs(given.out) : undefined;
    const { model: folder = before?.model, data = before?.data } = given;
    if (folder === undefined || data === undefined || data === null) {
      throw new UsageError('label: expected --model and --data.', {
        hint: 'They may be left out with --resume, where the session knows them.',
      });
    }
    const isDtypeGiven = command.getOptionValueSource('dtype') !== 'default';
    const dtype = isDtypeGiven ? given.dtype : (before?.dtype ?? given.dtype);
    const options = { ...given, data, dtype };
    const { model, tokenizer } = await openModel({ ...options, model: folder });
    const result = await label({
      ...options,
      model,
      tokenizer,
      modelFolder: folder,
      input: io.stdin,
      screen: io.stderr,
    });
    io.out(json === true ? JSON.stringify(result) : describe(result));
    if (result.stoppedBy === 'SIGINT' || result.stoppedBy === 'SIGTERM')
      setExitCode(EXIT_CODES[result.stoppedBy]);
  });
}

function describe(result: LabelResult): string {
  const { state, prompts, ranked, skipped, alike, remaining, pairs, out } = result;
  const notes = [`${ranked} judged`, `${skipped} skipped`];
  if (alike > 0) notes.push(`${alike} not asked, because their completions are alike`);
  if (state === 'stopped') notes.push(`${remaining} left`);
  return [
    `${counted(prompts, 'prompt')}: ${notes.join(', ')}.`,
    `Preferences: ${out} (${counted(pairs, 'pair')})`,
    ...(state === 'stopped' ? ['Go on: add --resume to the same command.'] : []),
  ].join('\n');
}
