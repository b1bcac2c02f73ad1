import { parseConfig, SftConfig, type ConfigSource, type SftConfigInput } from '../config/index.js';
import { tokenizeForSft, validateRows, type SftReport } from '../data/index.js';
import { loadModel } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { SftTrainer } from '../trainers/index.js';
import { type ProgressStream } from './progress.js';
import { buildOptimizer, findStart, openDirectory, Run } from './run.js';
import {
  deviceOf,
  fittingLength,
  readRunData,
  readTrainingData,
  settingsOf,
  type RunData,
} from './runInputs.js';

/** What `createSftRun` needs. */
export interface SftRunOptions {
  /** Folder of the model to train, with its tokenizer. */
  readonly model: string;
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
  const tokenizer = await loadTokenizer(start.modelFolder);
  const maxLength = fittingLength(start.modelFolder, config.maxLength, progress);
  const read = async (from: RunData, word: string) => {
    const { rows, record } = await readRunData(from);
    const format = validateRows(rows, ['language-modeling', 'prompt-completion']);
    const { examples, report } = tokenizeForSft(rows, tokenizer, { ...config, maxLength });
    progress?.write(`${word}: ${rows.length} ${format.name} rows; ${describe(report)}\n`);
    return { examples, record };
  };
  const { data, held, inputs } = await readTrainingData(options, start.record, read);

  const device = deviceOf(config.device);
  const model = await loadModel(start.modelFolder, { dtype: config.dtype, device });
  const optimizer = buildOptimizer(model, config);
  const trainer = new SftTrainer(
    {
      model,
      optimizer,
      examples: data.examples,
      evalExamples: held?.examples,
    },
    config,
  );
  const opened = await openDirectory(out, start, { method: 'sft', config, inputs }, trainer);
  return new Run({
    ...opened,
    trainer,
    config,
    model,
    optimizer,
    tokenizer,
    evaluate: held && (() => Promise.resolve(trainer.evaluate())),
  });
}

function describe(report: SftReport): string {
  const { examples, trainedTokens, truncated, dropped, boundaryMerges, withoutEos } = report;
  const remarks = [
    [truncated, 'cut at maxLength'],
    [dropped, 'left out'],
    [boundaryMerges, 'tokenized apart at the end of the prompt'],
    [withoutEos, 'without an end token'],
  ] as const;
  const found = remarks.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  return [`${examples} examples, ${trainedTokens} trained tokens`, ...found].join(', ');
}
