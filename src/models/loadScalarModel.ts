import { modelOnBase } from '../hub/index.js';
import { isAdapterFolder } from './adapterFolder.js';
import { headOutputs, loadHeaded, loadHeadedAdapter } from './loadHeadedModel.js';
import { loadModel, type LoadModelOptions } from './loadModel.js';
import { createScalarModel, SCORE_SHIFT, ScalarModel } from './scalarModel.js';

/**
 * Loads a reward or value model: a folder that `ScalarModel.save` wrote, or transformers' AutoModelForSequenceClassification
 * with one label, or an adapter of such a model in PEFT's layout (task_type SEQ_CLS), whose base is opened with it.
 *
 * @throws CheckpointError and IoError as `loadModel`; CheckpointError also for a folder without a scalar head
 */
export async function loadScalarModel(
  folderOrHubId: string,
  options: LoadModelOptions = {},
): Promise<ScalarModel> {
  const { folder, base } = await modelOnBase(folderOrHubId, options.base);
  if (isAdapterFolder(folder)) {
    const { model, metadata } = await loadHeadedAdapter(
      folder,
      SCALAR_HEAD,
      { ...options, base },
      {
        isWhole: isScalarModelFolder,
        loadWhole: loadScalarModel,
        create: async (of, placed, padTokenId) =>
          createScalarModel(await loadModel(of, placed), { padTokenId }),
      },
    );
    model.shiftScores(Number(metadata[SCORE_SHIFT] ?? 0) - model.scoreShift);
    return model;
  }
  const { trunk, head, fields } = loadHeaded(folder, SCALAR_HEAD, options);
  return new ScalarModel(trunk, head, fields.numberOrNull(SCORE_SHIFT) ?? 0);
}

const SCALAR_HEAD = {
  where: 'loadScalarModel',
  what: 'a scalar head',
  hint: 'To put a new head on a language model: createScalarModel(await loadModel(folder)).',
  outputs: 1,
  hasBias: () => false,
} as const;

/**
 * Whether a model folder holds a reward or value model.
 *
 * @throws CheckpointError and IoError as `loadModel`, where it is no model folder
 */
export function isScalarModelFolder(folder: string): boolean {
  // A classifier with several labels, a model of steps among them, has a head of the same name and more rows.
  return headOutputs('isScalarModelFolder', folder) === 1;
}
