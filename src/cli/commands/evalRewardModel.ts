/** What `eval` does with reward models and process reward models: measures one, or measures a policy by them. */
import type { Row } from '../../data/index.js';
import { counted } from '../../errors/index.js';
import type {
  Estimate,
  PreferenceEvaluation,
  ScoringModel,
  StepEvaluation,
} from '../../eval/index.js';
import type { Decoder } from '../../models/index.js';
import type { NamedReward } from '../../rewards/index.js';
import type { Tokenizer } from '../../tokenizers/index.js';
import type { CommandContext } from '../program.js';
import { refuseSampling } from './evalRefusals.js';

interface RewardModelOptions {
  readonly model: string;
  readonly device: string;
  readonly dtype: string;
  readonly base?: string;
  readonly seed: number;
  readonly json?: boolean;
  /** Names of the options that were given. */
  readonly given: ReadonlySet<string>;
}

/** Tells how a reward model agrees with preferences. Rows with faults are left out and counted. */
export async function measureRewardModel(
  { io }: CommandContext,
  options: RewardModelOptions,
  rows: readonly Row[],
): Promise<void> {
  const { forVocabulary, tokenizePreferences, validateFormat } =
    await import('../../data/index.js');
  const { evaluatePreferences } = await import('../../eval/index.js');
  const { openScalarModel } = await import('../placement.js');
  refuseSampling(options.given, 'a reward model', 'model:<reward model>');
  validateFormat(rows, ['preference'], 'skip');
  const { model, tokenizer } = await openScalarModel(options);
  const { pairs, report } = tokenizePreferences(
    rows,
    forVocabulary(tokenizer, model.config.vocabSize),
    {
      maxLength: model.config.maxPositionEmbeddings,
      appendEos: tokenizer.eosTokenId !== undefined,
      faulty: 'skip',
    },
  );
  const leftOut = rows.length - pairs.length;
  tellLeftOut(io, leftOut, report.faults);
  const found = evaluatePreferences({ model, pairs, seed: options.seed });
  io.out(options.json === true ? JSON.stringify({ ...found, leftOut }) : describe(found));
}

/** Tells how a process reward model agrees with labels of steps. Rows with faults are left out and counted. */
export async function measureStepModel(
  { io }: CommandContext,
  options: RewardModelOptions,
  rows: readonly Row[],
): Promise<void> {
  const { forVocabulary, tokenizeSteps, validateFormat } = await import('../../data/index.js');
  const { evaluateSteps } = await import('../../eval/index.js');
  const { openStepModel } = await import('../placement.js');
  refuseSampling(options.given, 'a process reward model', 'prm:<process reward model>');
  validateFormat(rows, ['stepwise'], 'skip');
  const { model, tokenizer } = await openStepModel(options);
  const { examples, report } = tokenizeSteps(
    rows,
    forVocabulary(tokenizer, model.config.vocabSize),
    {
      maxLength: model.config.maxPositionEmbeddings,
      stepSeparator: model.stepSeparator,
      faulty: 'skip',
    },
  );
  const leftOut = rows.length - examples.length;
  tellLeftOut(io, leftOut, report.faults);
  const found = evaluateSteps({ model, examples, seed: options.seed });
  io.out(options.json === true ? JSON.stringify({ ...found, leftOut }) : describeSteps(found));
}

function tellLeftOut(
  io: CommandContext['io'],
  leftOut: number,
  faults: Readonly<Record<string, number>>,
): void {
  const found = Object.entries(faults).filter(([, count]) => count > 0);
  if (found.length === 0) return;
  const reasons = found.map(([fault, count]) => `${fault} ${count}`).join(', ');
  io.stderr.write(`Left out: ${counted(leftOut, 'row')} (${reasons}).\n`);
}

function describe(found: PreferenceEvaluation): string {
  const { pairs, comparisons, accuracy } = found;
  const percent = (share: number): string => (100 * share).toFixed(1);
  const row = (name: string, value: string): string => `  ${name.padEnd(18)} ${value}`;
  const of = comparisons < pairs ? ` of ${counted(comparisons, 'comparison')}` : '';
  return [
    `${counted(pairs, 'pair')}${of}; 95 % interval over ${comparisons < pairs ? 'comparisons' : 'pairs'}`,
    row(
      'accuracy',
      `${percent(accuracy.value).padStart(5)} %  [${percent(accuracy.low)}, ${percent(accuracy.high)}]`,
    ),
    row('margin', `${found.margin.toFixed(4)}   (chosen less rejected)`),
    row('chosen, rejected', `${found.chosenReward.toFixed(4)}, ${found.rejectedReward.toFixed(4)}`),
    row('std of scores', found.rewardStd.toFixed(4)),
    row('loss', `${found.loss.toFixed(4)} nats   (guessing: 0.6931)`),
    row('mean probability', found.probability.toFixed(4)),
    row('calibration error', found.calibrationError.toFixed(4)),
  ].join('\n');
}

function describeSteps(found: StepEvaluation): string {
  const { accuracy, rightShare, rightProbability, wrongProbability } = found;
  const percent = (share: number): string => (100 * share).toFixed(1);
  const row = (name: string, value: string): string => `  ${name.padEnd(18)} ${value}`;
  const interval = ({ value, low, high }: Estimate): string =>
    `${percent(value).padStart(5)} %  [${percent(low)}, ${percent(high)}]`;
  const optional = (name: string, estimate: Estimate | undefined): string[] =>
    estimate === undefined ? [] : [row(name, interval(estimate))];
  const probabilities = [rightProbability, wrongProbability].map((p) => p?.toFixed(4) ?? '—');
  return [
    `${counted(found.steps, 'step')} of ${counted(found.examples, 'row')}; 95 % intervals over rows`,
    row(
      'accuracy of steps',
      `${percent(accuracy).padStart(5)} %  (larger class: ${percent(Math.max(rightShare, 1 - rightShare))} %)`,
    ),
    row('mean over rows', interval(found.rowAccuracy)),
    row('all steps right', interval(found.wholeRows)),
    ...optional('first error found', found.firstErrors),
    ...optional('none where none', found.rightRows),
    ...(found.firstErrorF1 === undefined ? [] : [row('F1 of both', percent(found.firstErrorF1))]),
    row('right, wrong steps', `${probabilities.join(', ')}   (mean probability of being right)`),
    row('loss', `${found.loss.toFixed(4)} nats   (guessing: 0.6931)`),
    row('calibration error', found.calibrationError.toFixed(4)),
  ].join('\n');
}

/**
 * Loads what scores completions: functions, and reward models where a specification is `model:folder`.
 *
 * @throws ConfigError for the weight of a reward that there is not, or another vocabulary than the policy's; RewardError
 *   as `loadReward`
 */
export async function openRewards(
  specs: readonly string[],
  weightTexts: readonly string[],
  { model: policy, tokenizer }: { readonly model: Decoder; readonly tokenizer: Tokenizer },
): Promise<{ rewards: readonly NamedReward[]; rewardModels: readonly ScoringModel[] }> {
  const { parseRewardWeight } = await import('../../rewards/index.js');
  const { readRewards, requireSameVocabulary } = await import('../../runs/index.js');
  const weights = weightTexts.map(parseRewardWeight);
  const { named, load } = await readRewards(
    specs,
    Object.fromEntries(weights.map(({ name, weight }) => [name, weight])),
    tokenizer,
  );
  const rewardModels = await load(policy);
  requireSameVocabulary(policy, rewardModels);
  return { rewards: named, rewardModels };
}
