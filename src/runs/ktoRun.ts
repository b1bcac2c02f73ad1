import { KtoConfig, parseConfig, type KtoConfigInput } from '../config/index.js';
import { UnpairedReader } from '../data/index.js';
import { tokenizerFolderOf, type Decoder } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { KtoTrainer } from '../trainers/index.js';
import type { PreferenceRunOptions } from './pairRuns.js';
import { describePreferences } from './preferenceReport.js';
import { tellExample } from './examplePreview.js';
import { buildOptimizer, buildOrFree, findStart, openDirectory, Run } from './run.js';
import { restingSettings } from './frozenWeights.js';
import { loadPolicy } from './trainedModels.js';
import { requireMemory } from './requireMemory.js';
import { deviceOf, fittingLength, settingsOf, tokenizerFor } from './runInputs.js';
import { readTrainingExamples } from './trainingData.js';

/**
 * A KTO run, ready to `train`. Rows are `{prompt, completion, label}`; of a preference row the chosen completion is a
 * desirable row and the rejected one an undesirable one. Data and settings are checked before anything is written.
 *
 * @throws ConfigError, DataError, CheckpointError or IoError with what was expected and received
 */
export async function createKtoRun(
  options: PreferenceRunOptions<KtoConfigInput>,
): Promise<Run<KtoTrainer, KtoConfig>> {
  const { out, progress = process.stderr } = options;
  const start = await findStart('kto', options);
  const config = parseConfig(KtoConfig, settingsOf(options.config, start.record, 'createKtoRun'));
  const tokenizer = await loadTokenizer(tokenizerFolderOf(start.modelFolder));
  const maxLength = fittingLength(start.modelFolder, config.maxLength, progress);
  const texts = tokenizerFor(start.modelFolder, tokenizer);
  const { examples, held, first, longest, inputs } = await readTrainingExamples(
    options,
    { record: start.record, config, progress },
    {
      ...{ formats: ['unpaired-preference', 'preference'], faulty: config.faulty },
      open: (format) => new UnpairedReader(format, texts, { ...config, maxLength }),
      rowName: ({ name }) => `${name} row`,
      describe: describePreferences,
      lengthOf: ({ promptIds, completionIds }) => promptIds.length + completionIds.length,
    },
  );
  if (first !== undefined) {
    const { promptIds, completionIds, label, row } = first;
    const isTrained = (place: number): boolean => place >= promptIds.length;
    const name = label ? 'desirable' : 'undesirable';
    tellExample(progress, tokenizer, row, [
      { name, ids: [...promptIds, ...completionIds], isTrained },
    ]);
  }

  await requireMemory(
    restingSettings(config, out, { ownWeights: config.lora === null, progress }),
    {
      models: [
        { from: start.modelFolder, isTrained: true, hasLmHead: true },
        { from: options.model, isTrained: false, hasLmHead: true, isBesidePolicy: true },
      ],
      device: deviceOf(config.device),
      ...{ update: { rows: config.batchSize, longest }, rollout: null },
    },
    progress,
  );
  return await buildOrFree(async (keep) => {
    const from = { start, model: options.model, out };
    const loaded = await loadPolicy(from, config, { needsReference: true });
    const policy = keep(loaded.policy);
    const reference = keep(loaded.reference as Decoder); // it was asked for
    const optimizer = keep(buildOptimizer(policy, config));
    const trainer = new KtoTrainer(
      {
        ...{ policy, reference, optimizer },
        examples,
        evalExamples: held,
        tokenizer,
      },
      config,
    );
    const opened = await openDirectory(out, start, { method: 'kto', config, inputs }, trainer);
    return new Run({
      ...opened,
      ...{ trainer, config, model: policy, optimizer, tokenizer },
      disposeOthers: () => reference.dispose(),
      evaluate: held && (() => Promise.resolve(trainer.evaluate())),
    });
  });
}
