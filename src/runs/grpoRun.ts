import { GrpoConfig, parseConfig, type GrpoConfigInput } from '../config/index.js';
import { GrpoTrainer, needsReference, nullGroupWarning } from '../trainers/index.js';
import {
  heldOutEvaluation,
  loadOnPolicyModels,
  type OnPolicyRunOptions,
} from './onPolicyInputs.js';
import { buildOptimizer, buildOrFree, findStart, openDirectory, Run } from './run.js';
import { settingsOf } from './runInputs.js';

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
  const from = {
    start,
    needsReference: needsReference(config),
    rowsPerPrompt: config.groupSize,
    rowsPerUpdate: config.minibatchSize,
  };
  return await buildOrFree(async (keep) => {
    const { inputs, models, disposeFrozen } = await loadOnPolicyModels(options, config, {
      ...from,
      keep,
    });
    const { policy, tokenizer } = models;
    const optimizer = keep(buildOptimizer(policy, config));
    const trainer = new GrpoTrainer({ ...models, optimizer }, config);
    const description = { method: 'grpo', config, inputs: inputs.record };
    const opened = await openDirectory(options.out, start, description, trainer);
    return new Run({
      ...opened,
      trainer,
      config,
      model: policy,
      optimizer,
      tokenizer,
      beforeTraining: async () =>
        comparesGroups(config) ? nullGroupWarning(await trainer.forecast()) : undefined,
      disposeOthers: disposeFrozen,
      evaluate: heldOutEvaluation(inputs, config, { policy, tokenizer }),
    });
  });
}

/** Whether rewards that are all equal in a group mean that it teaches nothing. */
function comparesGroups({ baseline, groupSize }: GrpoConfig): boolean {
  return groupSize >= 2 && baseline !== 'greedy' && baseline !== 'none';
}
