/** What `eval --against` does: measures how often a model's completions are preferred to others. */
import { existsSync } from 'node:fs';
import type { PromptExample, Row } from '../../data/index.js';
import { hubIdOf } from '../../hub/index.js';
import { UsageError, counted } from '../../errors/index.js';
import type { Opponent, WinRate, WinRateOptions } from '../../eval/index.js';
import type { CommandContext } from '../program.js';
import { tellFailures, writeResult, type EvalOptions, type Subject } from './eval.js';

type AgainstOptions = EvalOptions & { readonly against: string };

/** Tells the win rate against another model, or against the texts of a column. */
export async function measureWinRate(
  { io }: CommandContext,
  options: AgainstOptions,
  subject: Subject,
): Promise<void> {
  const { winRate } = await import('../../eval/index.js');
  const sides = await sidesOf(io, options, subject);
  const { model, tokenizer } = subject;
  const judged = await comparison(options, subject, sides);
  const { Progress } = await import('../../runs/index.js');
  const drawnSides = 'model' in sides.against ? 2 : 1;
  const total = sides.prompts.length * Math.max(1, options.samples) * drawnSides;
  const progress = new Progress(io.stderr, { label: 'eval', total, unit: 'completion' });
  const found = await winRate({
    ...{ model, tokenizer },
    ...sides,
    ...judged,
    samples: options.samples,
    temperature: options.temperature,
    topP: options.topP,
    seed: options.seed,
    onProgress: (finished) => progress.update(finished),
  });
  progress.end();
  tellFailures(io, found.failures);
  const { pairs, failures: _, ...measured } = found;
  if (options.completions !== undefined) {
    writeResult(options.completions, pairs.map((pair) => `${JSON.stringify(pair)}\n`).join(''));
  }
  io.out(options.json === true ? JSON.stringify(measured) : describe(found, options));
}

/**
 * What is about right answers or turns would be passed over in silence.
 *
 * @throws UsageError
 */
export function refuseOthers(options: AgainstOptions): void {
  const given = (['threshold', 'k', 'answer', 'environment', 'maxTurns'] as const).filter(
    (name) => options[name] !== undefined,
  );
  const [first] = given;
  if (first !== undefined) {
    throw new UsageError(
      `eval: expected no --${first === 'maxTurns' ? 'max-turns' : first} with --against, which compares completions, received one.`,
    );
  }
  const ways = [options.reward, options.judge].filter((way) => way !== undefined).length;
  if (options.judge !== undefined && options.reward === undefined && options.rewardWeight)
    throw new UsageError('eval: expected no --reward-weight with --judge, received one.');
  if (ways === 1) return;
  throw new UsageError(
    `eval: expected --reward or --judge with --against, received ${ways === 0 ? 'neither' : 'both'}.`,
    { hint: 'For example --reward model:runs/reward/model, or --judge ./judge.ts.' },
  );
}

type Sides = Pick<WinRateOptions, 'prompts' | 'against' | 'maxNewTokens'>;

/** Prompts that both sides can read, as each of them reads them, and how long completions may be. */
async function sidesOf(
  io: CommandContext['io'],
  options: AgainstOptions,
  { rows, model, tokenizer }: Subject,
): Promise<Sides> {
  const { defaultMaxNewTokens, openModel } = await import('../placement.js');
  const { isAdapterFolder } = await import('../../models/index.js');
  const other = isModel(options.against, rows)
    ? await openModel({
        ...options,
        model: options.against,
        // It is that of an adapter, which either side may be.
        base: isAdapterFolder(options.against) ? options.base : undefined,
      })
    : undefined;
  const [own, others] = [
    await promptsOf(rows, { model, tokenizer }, options),
    other && (await promptsOf(rows, other, options)),
  ];
  const common = rows.filter((row) => own.has(row) && (others === undefined || others.has(row)));
  if (common.length < rows.length)
    io.stderr.write(
      `Left out, because there is no room to complete them: ${counted(rows.length - common.length, 'prompt')}.\n`,
    );
  const taken = (from: ReadonlyMap<Row, PromptExample>): PromptExample[] =>
    common.flatMap((row) => from.get(row) ?? []);
  const room = (prompts: readonly PromptExample[], of: Pick<Opponent, 'model'>): number =>
    defaultMaxNewTokens(of.model, Math.max(...prompts.map(({ inputIds }) => inputIds.length)));
  const prompts = taken(own);
  if (other === undefined || others === undefined) {
    const against = textsOf(common, options.against);
    return { prompts, against, maxNewTokens: options.maxNewTokens ?? room(prompts, { model }) };
  }
  const against = { ...other, prompts: taken(others) };
  const fitting = Math.min(room(prompts, { model }), room(against.prompts, other));
  return { prompts, against, maxNewTokens: options.maxNewTokens ?? fitting };
}

/** Whether it is a folder, or a name of the Hub that is no column. */
function isModel(against: string, [row]: readonly Row[]): boolean {
  const isColumn = row !== undefined && against in row.values;
  return existsSync(against) || (!isColumn && hubIdOf(against) !== undefined);
}

async function promptsOf(
  rows: readonly Row[],
  { model, tokenizer }: Pick<Opponent, 'model' | 'tokenizer'>,
  { maxNewTokens = 1 }: AgainstOptions,
): Promise<Map<Row, PromptExample>> {
  const { forVocabulary, tokenizePrompts } = await import('../../data/index.js');
  const maxPromptLength = Math.max(1, model.config.maxPositionEmbeddings - maxNewTokens);
  const { prompts } = tokenizePrompts(rows, forVocabulary(tokenizer, model.config.vocabSize), {
    maxPromptLength,
  });
  return new Map(prompts.map((prompt) => [prompt.row, prompt]));
}

function textsOf(rows: readonly Row[], column: string): string[] {
  return rows.map(({ file, line, values }) => {
    const text = values[column];
    if (typeof text === 'string') return text;
    throw new UsageError(
      `--against: expected a model folder, or a column with a text in every row, received ${JSON.stringify(column)}, which ${file}:${line} does not have as a text.`,
    );
  });
}

const READS_TOKENS =
  'A reward model reads the tokens as they were drawn. Compare by a function or a judge.';

/** What compares: rewards, which are prepared for all rows, or a judge. */
async function comparison(
  options: AgainstOptions,
  { rows, model, tokenizer }: Subject,
  { prompts, against }: Sides,
): Promise<Pick<WinRateOptions, 'rewards' | 'rewardModels' | 'judge'>> {
  if (options.judge !== undefined) {
    const { loadJudge } = await import('../../rewards/index.js');
    return { judge: await loadJudge(options.judge) };
  }
  const { openRewards } = await import('./evalRewardModel.js');
  const weights = options.rewardWeight ?? [];
  const opened = await openRewards(options.reward ?? [], weights, { model, tokenizer });
  for (const reward of opened.rewards) reward.prepare?.(rows.map(({ values }) => values));
  const { finishedTokens } = await import('../../eval/index.js');
  const lengths = prompts.map(({ inputIds, row }, index) => {
    // Of a model's completion only the first token is sure.
    const text = 'model' in against ? 1 : finishedTokens(against[index] ?? '', tokenizer).length;
    return { row, tokens: inputIds.length + text };
  });
  for (const { name, model: judge } of opened.rewardModels)
    requireRoom({ name, positions: judge.trunk.config.maxPositionEmbeddings }, lengths);
  if ('model' in against && opened.rewardModels.length > 0) {
    const [own, other] = [model, against.model].map(({ config }) => config.vocabSize);
    if (own !== other) {
      throw new UsageError(
        `--against: expected a model of the vocabulary that --model and the reward model have, ${own} tokens, received one of ${other}.`,
        { hint: READS_TOKENS },
      );
    }
    const { differingToken } = await import('../../tokenizers/index.js');
    const found = differingToken(tokenizer, against.tokenizer);
    if (found !== undefined) {
      throw new UsageError(
        `--against: expected a model of --model's tokenizer, whose token ${found.id} is ${found.expected}, received one whose token ${found.id} is ${found.received}.`,
        { hint: READS_TOKENS },
      );
    }
  }
  return opened;
}

/**
 * Refuses texts that a reward model cannot read, before anything is sampled.
 *
 * @throws UsageError that names the row
 */
function requireRoom(
  { name, positions }: { readonly name: string; readonly positions: number },
  rows: readonly { readonly row: Row; readonly tokens: number }[],
): void {
  const long = rows.find(({ tokens }) => tokens > positions);
  if (long === undefined) return;
  const { row, tokens } = long;
  throw new UsageError(
    `--against: expected prompts and texts that the reward model ${name} has room for, ${positions} tokens, received ${tokens} at ${row.file}:${row.line}.`,
    { hint: 'Leave the row out, or compare by a function or a judge.' },
  );
}

function describe(found: WinRate, { against, samples, temperature }: AgainstOptions): string {
  const { problems, winRate, wins, ties, losses, uncompared, firstPreferred } = found;
  const percent = (share: number): string => (100 * share).toFixed(1);
  const row = (name: string, value: string): string => `  ${name.padEnd(18)} ${value}`;
  const drawn =
    samples === 0 ? 'greedy' : `${counted(samples, 'sample')} at temperature ${temperature}`;
  return [
    `${counted(problems, 'prompt')}, ${drawn}, against ${against}; 95 % interval over prompts`,
    row(
      'win rate',
      `${percent(winRate.value).padStart(5)} %  [${percent(winRate.low)}, ${percent(winRate.high)}]   (ties count half)`,
    ),
    row('won, tied, lost', `${[wins, ties, losses].map(percent).join(', ')} %`),
    ...(uncompared > 0 ? [row('not compared', `${counted(uncompared, 'pair')} (left out)`)] : []),
    ...(firstPreferred === undefined
      ? []
      : [
          row(
            'first preferred',
            `${percent(firstPreferred)} %   (half, unless the judge prefers a place)`,
          ),
        ]),
  ].join('\n');
}
