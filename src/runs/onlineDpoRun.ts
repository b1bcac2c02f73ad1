import { OnlineDpoConfig, parseConfig, type OnlineDpoConfigInput } from '../config/index.js';
import type { Decoder } from '../models/index.js';
import { loadJudge, type PairwiseJudge } from '../rewards/index.js';
import { OnlineDpoTrainer } from '../trainers/index.js';
import {
  heldOutEvaluation,
  loadOnPolicyModels,
  type OnPolicyRunOptions,
} from './onPolicyInputs.js';
import { buildOptimizer, buildOrFree, findStart, openDirectory, Run } from './run.js';
import { settingsOf } from './runInputs.js';

/** What `createOnlineDpoRun` needs: rewards or a judge. `Row` is what they know of a row. */
export interface OnlineDpoRunOptions<Row = Readonly<Record<string, unknown>>> extends Omit<
  OnPolicyRunOptions<OnlineDpoConfigInput, Row>,
  'rewards'
> {
  readonly rewards?: OnPolicyRunOptions<OnlineDpoConfigInput, Row>['rewards'] | undefined;
  /** Compares the two completions of a prompt, in place of rewards: a function, or a file that exports one. */
  readonly judge?: PairwiseJudge<Row> | string | undefined;
}

/**
 * An online DPO run, ready to `train`: policy, frozen reference, and a judge, rewards or reward models. Data, rewards
 * and settings are checked before anything is written.
 *
 * @throws ConfigError, DataError, RewardError, CheckpointError or IoError with what was expected and received
 */
export async function createOnlineDpoRun<Row = Readonly<Record<string, unknown>>>(
  options: OnlineDpoRunOptions<Row>,
): Promise<Run<OnlineDpoTrainer, OnlineDpoConfig>> {
  const start = await findStart('online-dpo', options);
  const config = parseConfig(
    OnlineDpoConfig,
    settingsOf(options.config, start.record, 'createOnlineDpoRun'),
  );
  const judge = await judgeOf(options.judge);
  const from = {
    start,
    needsReference: true,
    mayLackRewards: judge !== undefined,
    ...{ rowsPerPrompt: 2, rowsPerUpdate: null, readsBetweenPasses: true },
  };
  const given = { ...options, rewards: options.rewards ?? [] };
  return await buildOrFree(async (keep) => {
    const { inputs, models, disposeFrozen } = await loadOnPolicyModels(given, config, {
      ...from,
      keep,
    });
    const { policy, tokenizer } = models;
    const reference = models.reference as Decoder; // it was asked for
    const optimizer = keep(buildOptimizer(policy, config));
    const trainer = new OnlineDpoTrainer({ ...models, reference, optimizer, judge }, config);
    const judged = {
      ...(judge && { judge: judge.name }),
      ...(typeof options.judge === 'string' && { judgeSpec: options.judge }),
    };
    const description = { method: 'online-dpo', config, inputs: { ...inputs.record, ...judged } };
    const opened = await openDirectory(options.out, start, description, trainer);
    return new Run({
      ...opened,
      ...{ trainer, config, model: policy, optimizer, tokenizer },
      disposeOthers: disposeFrozen,
      evaluate: heldOutEvaluation(inputs, config, { policy, tokenizer }),
    });
  });
}

/** At run time a judge gets the row as it was read, whatever type its author gives it. */
async function judgeOf<Row>(
  given: PairwiseJudge<Row> | string | undefined,
): Promise<PairwiseJudge | undefined> {
  return typeof given === 'string' ? await loadJudge(given) : (given as PairwiseJudge | undefined);
}
