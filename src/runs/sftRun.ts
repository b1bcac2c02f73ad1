import { parseConfig, SftConfig, type ConfigSource, type SftConfigInput } from '../config/index.js';
import { loadModel, tokenizerFolderOf } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { SftTrainer } from '../trainers/index.js';
import { type ProgressStream } from './progress.js';
import { buildOptimizer, buildOrFree, findStart, openDirectory, Run } from './run.js';
import { requireMemory } from './requireMemory.js';
import {
  deviceOf,
  fittingLength,
  placementOf,
  settingsOf,
  tokenizerFor,
  type RunData,
} from './runInputs.js';
import { prepareLora } from './trainedModels.js';
import { sftKind, tellSftExample } from './sftData.js';
import { readTrainingExamples } from './trainingData.js';

/** What `createSftRun` needs. */
export interface SftRunOptions {
  /** Folder of the model to train, with its tokenizer. */
  readonly model: string;
  /** Where `model` is an adapter: its base model, a folder or `org/name`, where it is not what adapter_config.json names. */
  readonly base?: string | undefined;
  /** Rows `{text}`, `{messages}` or `{prompt, completion}`: a file, several, or objects. */
  readonly data: RunData;
  /** Held-out rows of the same kind, whose loss and perplexity are measured (see `evalEvery`). */
  readonly evalData?: RunData | undefined;
  /** The run directory; must be new, unless the run is resumed. */
  readonly out: string;
  readonly config?: SftConfigInput | ConfigSource | undefined;
  /** Goes on with the run in `out`. */
  readonly resume?: boolean | undefined;
  /** Where it is told what was read; null tells nothing. Standard error unless set. */
  readonly progress?: ProgressStream | null | undefined;
}

/**
 * A supervised fine-tuning run, ready to `train`. Data and settings are checked before anything is written.
 *
 * @throws ConfigError, DataError, CheckpointError or IoError with what was expected and received
 */
export async function createSftRun(options: SftRunOptions): Promise<Run<SftTrainer, SftConfig>> {
  const { out, progress = process.stderr } = options;
  const start = await findStart('sft', options);
  const config = parseConfig(SftConfig, settingsOf(options.config, start.record, 'createSftRun'));
  const tokenizer = await loadTokenizer(tokenizerFolderOf(start.modelFolder));
  const maxLength = fittingLength(start.modelFolder, config.maxLength, progress);
  const { examples, held, first, longest, inputs } = await readTrainingExamples(
    options,
    { record: start.record, config, progress },
    sftKind(tokenizerFor(start.modelFolder, tokenizer), { ...config, maxLength }),
  );
  tellSftExample(progress, tokenizer, first);

  const device = deviceOf(config.device);
  await requireMemory(
    config,
    {
      models: [{ from: start.modelFolder, isTrained: true, hasLmHead: true }],
      ...{ device, update: { rows: config.batchSize, longest }, rollout: null },
    },
    progress,
  );
  return await buildOrFree(async (keep) => {
    const model = keep(await loadModel(start.modelFolder, placementOf(config)));
    await prepareLora(model, config, start.modelFolder);
    const optimizer = keep(buildOptimizer(model, config));
    const trainer = new SftTrainer({ model, optimizer, examples, evalExamples: held }, config);
    const opened = await openDirectory(out, start, { method: 'sft', config, inputs }, trainer);
    return new Run({
      ...opened,
      ...{ trainer, config, model, optimizer, tokenizer },
      evaluate: held && (() => Promise.resolve(trainer.evaluate())),
    });
  });
}
