import { GrpoConfig, parseConfig, type GrpoConfigInput } from '../config/index.js';
import { loadModel } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { GrpoTrainer, needsReference, nullGroupWarning } from '../trainers/index.js';
import {
  heldOutEvaluation,
  readOnPolicyInputs,
  requireSameVocabulary,
  type OnPolicyRunOptions,
} from './onPolicyInputs.js';
import { buildOptimizer, findStart, openDirectory, Run } from './run.js';
import { deviceOf, settingsOf } from './runInputs.js';

/** What `createGrpoRun` needs. `Row` is what the rewards know of a row. */
export type GrpoRunOptions<Row = Readonly<Record<string, unknown>>> = OnPolicyRunOptions<
  GrpoConfigInput,
  Row
>;

/**
 * A run of GRPO or of a method of its family, ready to `train`. Data, rewards and settings are checked before anything is
 * written.
 *
 * @throws ConfigError, DataError, RewardError, CheckpointError or IoError with what was expected and received
 */
export async function createGrpoRun<Row = Readonly<Record<string, unknown>>>(
  options: GrpoRunOptions<Row>,
): Promise<Run<GrpoTrainer, GrpoConfig>> {
  const start = await findStart('grpo', options);
  const config = parseConfig(GrpoConfig, settingsOf(options.config, start.record, 'createGrpoRun'));
  const tokenizer = await loadTokenizer(start.modelFolder);
  const inputs = await readOnPolicyInputs(options, config, { start, tokenizer });
  const placed = { dtype: config.dtype, device: deviceOf(config.device) };
  const rewardModels = await inputs.loadRewardModels(placed);
  const policy = await loadModel(start.modelFolder, placed);
  requireSameVocabulary(policy, rewardModels);
  const reference = needsReference(config)
    ? (await loadModel(options.model, placed)).freeze()
    : null;
  const optimizer = buildOptimizer(policy, config);
  const { prompts, rewards, environment } = inputs;
  const trainer = new GrpoTrainer(
    { policy, reference, tokenizer, optimizer, prompts, rewards, rewardModels, environment },
    config,
  );
  const description = { method: 'grpo', config, inputs: inputs.record };
  const opened = await openDirectory(options.out, start, description, trainer);
  return new Run({
    ...opened,
    trainer,
    config,
    model: policy,
    tokenizer,
    beforeTraining: async () =>
      config.groupSize >= 2 ? nullGroupWarning(await trainer.forecast()) : undefined,
    disposeOthers: () => {
      reference?.dispose();
      for (const { model } of rewardModels) model.dispose();
    },
    evaluate: heldOutEvaluation(inputs, config, { policy, tokenizer }),
  });
}
