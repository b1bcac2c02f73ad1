import { parseConfig, PrmConfig, type ConfigSource, type PrmConfigInput } from '../config/index.js';
import { StepReader, type StepReport } from '../data/index.js';
import { counted } from '../errors/index.js';
import { evaluateSteps, stepMetrics } from '../eval/index.js';
import {
  createStepModel,
  isStepModelFolder,
  loadModel,
  loadStepModel,
  tokenizerFolderOf,
  type StepModel,
} from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { PrmTrainer } from '../trainers/index.js';
import { type ProgressStream } from './progress.js';
import { tellExample } from './examplePreview.js';
import { buildOptimizer, buildOrFree, findStart, openDirectory, Run } from './run.js';
import { requireMemory } from './requireMemory.js';
import { prepareLora } from './trainedModels.js';
import {
  deviceOf,
  placementOf,
  fittingLength,
  settingsOf,
  tokenizerFor,
  type RunData,
} from './runInputs.js';
import { readTrainingExamples } from './trainingData.js';

/** What `createPrmRun` needs. */
export interface PrmRunOptions {
  /**
   * Folder of the model to start from, with its tokenizer: a language model, which gets a new head, or a process reward
   * model, whose training goes on.
   */
  readonly model: string;
  /** Where `model` is an adapter: its base model, a folder or `org/name`, where it is not what adapter_config.json names. */
  readonly base?: string | undefined;
  /** Rows `{prompt, completions, labels}`, a completion and a label per step: a file, several, or objects. */
  readonly data: RunData;
  /** Held-out rows of the same kind, on whose steps the model is measured (see `evalEvery`). */
  readonly evalData?: RunData | undefined;
  /** The run directory; must be new, unless the run is resumed. */
  readonly out: string;
  readonly config?: PrmConfigInput | ConfigSource | undefined;
  /** Goes on with the run in `out`. */
  readonly resume?: boolean | undefined;
  /** Where it is told what was read; null tells nothing. Standard error unless set. */
  readonly progress?: ProgressStream | null | undefined;
}

/**
 * A run that trains a process reward model, ready to `train`. Data and settings are checked before anything is written.
 * The model is saved with its tokenizer and its separator, ready for `--reward prm:folder` and `scoreSteps`.
 *
 * @throws ConfigError, DataError, CheckpointError or IoError with what was expected and received
 */
export async function createPrmRun(
  options: PrmRunOptions,
): Promise<Run<PrmTrainer, PrmConfig, StepModel>> {
  const { out, progress = process.stderr } = options;
  const start = await findStart('prm', options);
  const config = parseConfig(PrmConfig, settingsOf(options.config, start.record, 'createPrmRun'));
  const tokenizer = await loadTokenizer(tokenizerFolderOf(start.modelFolder));
  const maxLength = fittingLength(start.modelFolder, config.maxLength, progress);
  const texts = tokenizerFor(start.modelFolder, tokenizer);
  const { examples, held, first, longest, inputs } = await readTrainingExamples(
    options,
    { record: start.record, config, progress },
    {
      ...{ formats: ['stepwise'], faulty: config.faulty },
      open: (format) => new StepReader(format, texts, { ...config, maxLength }),
      rowName: () => 'row',
      describe,
      lengthOf: ({ inputIds }) => inputIds.length,
    },
  );
  if (first !== undefined) {
    const { inputIds: ids, stepEnds, labels, row } = first;
    const ends = new Set(stepEnds);
    const name = `steps ${labels.map((isRight) => (isRight ? 'right' : 'wrong')).join(', ')}`;
    tellExample(progress, tokenizer, row, [{ name, ids, isTrained: (at) => ends.has(at) }]);
  }

  await requireMemory(
    config,
    {
      models: [{ from: start.modelFolder, isTrained: true, hasLmHead: false }],
      device: deviceOf(config.device),
      update: { rows: config.batchSize, longest },
      rollout: null,
    },
    progress,
  );
  return await buildOrFree(async (keep) => {
    const model = keep(await modelOf(start.modelFolder, config, tokenizer.padTokenId));
    await prepareLora(model, config, start.modelFolder);
    const optimizer = keep(buildOptimizer(model, config));
    const trainer = new PrmTrainer({ model, optimizer, examples, tokenizer }, config);
    const opened = await openDirectory(out, start, { method: 'prm', config, inputs }, trainer);
    const { microBatchTokens, seed } = config;
    return new Run({
      ...opened,
      trainer,
      config,
      model,
      optimizer,
      tokenizer,
      evaluate:
        held &&
        (() =>
          Promise.resolve(
            stepMetrics(evaluateSteps({ model, examples: held, microBatchTokens, seed })),
          )),
    });
  });
}

/** A step model goes on with its head, a language model gets a new one; both end steps as the settings say. */
async function modelOf(
  folder: string,
  config: PrmConfig,
  padTokenId: number | undefined,
): Promise<StepModel> {
  const { stepSeparator, seed } = config;
  const placed = placementOf(config);
  if (!isStepModelFolder(folder)) {
    return createStepModel(await loadModel(folder, placed), { seed, stepSeparator, padTokenId });
  }
  const model = await loadStepModel(folder, placed);
  model.stepSeparator = stepSeparator;
  return model;
}

function describe(report: StepReport): string {
  const { examples, steps, rightSteps, separatorsInside, faults } = report;
  const remarks = [
    [faults.tooLong, 'too long left out'],
    [faults.empty, 'with an empty step left out'],
    [faults.unreadable, 'that cannot be read left out'],
  ] as const;
  const found = remarks.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  return [
    counted(examples, 'example'),
    `${counted(steps, 'step')}, ${rightSteps} of them right`,
    ...found,
    ...(separatorsInside > 0
      ? [`${counted(separatorsInside, 'step')} with the separator inside`]
      : []),
  ].join(', ');
}
