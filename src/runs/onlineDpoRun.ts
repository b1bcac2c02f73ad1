import { OnlineDpoConfig, parseConfig, type OnlineDpoConfigInput } from '../config/index.js';
import type { Decoder } from '../models/index.js';
import { OnlineDpoTrainer } from '../trainers/index.js';
import {
  heldOutEvaluation,
  loadOnPolicyModels,
  type OnPolicyRunOptions,
} from './onPolicyInputs.js';
import { buildOptimizer, findStart, openDirectory, Run } from './run.js';
import { settingsOf } from './runInputs.js';

/** What `createOnlineDpoRun` needs. `Row` is what the rewards know of a row. */
export type OnlineDpoRunOptions<Row = Readonly<Record<string, unknown>>> = OnPolicyRunOptions<
  OnlineDpoConfigInput,
  Row
>;

/**
 * An online DPO run, ready to `train`: policy, frozen reference, rewards or reward models as judges. Data, rewards and
 * settings are checked before anything is written.
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
  const from = { start, needsReference: true };
  const { inputs, models, disposeFrozen } = await loadOnPolicyModels(options, config, from);
  const { policy, tokenizer } = models;
  const reference = models.reference as Decoder; // it was asked for
  const optimizer = buildOptimizer(policy, config);
  const trainer = new OnlineDpoTrainer({ ...models, reference, optimizer }, config);
  const description = { method: 'online-dpo', config, inputs: inputs.record };
  const opened = await openDirectory(options.out, start, description, trainer);
  return new Run({
    ...opened,
    ...{ trainer, config, model: policy, optimizer, tokenizer },
    disposeOthers: disposeFrozen,
    evaluate: heldOutEvaluation(inputs, config, { policy, tokenizer }),
  });
}
