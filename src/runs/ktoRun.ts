import { KtoConfig, parseConfig, type KtoConfigInput } from '../config/index.js';
import { tokenizeUnpaired, validateFormat, type Row } from '../data/index.js';
import { tokenizerFolderOf, type Decoder } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { KtoTrainer } from '../trainers/index.js';
import type { PreferenceRunOptions } from './pairRuns.js';
import { describePreferences } from './preferenceReport.js';
import { tellExample } from './examplePreview.js';
import { buildOptimizer, buildOrFree, findStart, openDirectory, Run } from './run.js';
import { loadPolicy } from './trainedModels.js';
import { longestOf, requireMemory } from './requireMemory.js';
import { deviceOf, fittingLength, readTrainingData, settingsOf } from './runInputs.js';

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
  const read = (rows: Row[], word: string) => {
    const format = validateFormat(rows, ['unpaired-preference', 'preference'], config.faulty);
    const { examples, report } = tokenizeUnpaired(rows, tokenizer, { ...config, maxLength });
    progress?.write(
      `${word}: ${rows.length} ${format.name} rows; ${describePreferences(report)}\n`,
    );
    return { examples };
  };
  const { data, held, inputs } = await readTrainingData(
    options,
    { record: start.record, config },
    read,
  );
  const [first] = data.examples;
  if (first !== undefined) {
    const { promptIds, completionIds, label, row } = first;
    const isTrained = (place: number): boolean => place >= promptIds.length;
    const name = label ? 'desirable' : 'undesirable';
    tellExample(progress, tokenizer, row, [
      { name, ids: [...promptIds, ...completionIds], isTrained },
    ]);
  }

  const longest = longestOf(
    data.examples,
    ({ promptIds, completionIds }) => promptIds.length + completionIds.length,
  );
  await requireMemory(
    config,
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
    const from = { start, model: options.model };
    const loaded = await loadPolicy(from, config, { needsReference: true });
    const policy = keep(loaded.policy);
    const reference = keep(loaded.reference as Decoder); // it was asked for
    const optimizer = keep(buildOptimizer(policy, config));
    const trainer = new KtoTrainer(
      {
        ...{ policy, reference, optimizer },
        examples: data.examples,
        evalExamples: held?.examples,
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
