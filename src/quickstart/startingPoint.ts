/** What an experiment on a made task starts from: its data as a user would bring it, and a model with random weights. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder } from '../hub/index.js';
import { createModel, makeDecoderConfig, type DecoderOptions } from '../models/index.js';
import { createCharacterTokenizer } from '../tokenizers/index.js';

/** A made task, whatever it is about. */
export interface MadeTask {
  /** Every character of the texts, each once. */
  readonly characters: string;
  readonly demonstrations: readonly object[];
  readonly trainPrompts: readonly object[];
  readonly heldOut: readonly object[];
}

/** Where everything was written. */
export interface StartingPaths {
  /** Folder of the model and its tokenizer. */
  readonly model: string;
  readonly demonstrations: string;
  readonly problems: string;
  readonly heldOut: string;
}

/**
 * Writes a task as JSON lines, and beside it a decoder with random weights and a tokenizer of the task's characters.
 *
 * @throws IoError if something cannot be written
 */
export async function writeStartingPoint(
  out: string,
  task: MadeTask,
  settings: { readonly model: Omit<DecoderOptions, 'vocabSize'>; readonly seed: number },
): Promise<{ paths: StartingPaths; parameters: number }> {
  const paths = {
    model: join(out, 'model'),
    demonstrations: join(out, 'demonstrations.jsonl'),
    problems: join(out, 'problems.jsonl'),
    heldOut: join(out, 'held-out.jsonl'),
  };
  makeFolder(paths.model);
  const write = (path: string, rows: readonly object[]): Promise<void> =>
    writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  await write(paths.demonstrations, task.demonstrations);
  await write(paths.problems, task.trainPrompts);
  await write(paths.heldOut, task.heldOut);

  const tokenizer = createCharacterTokenizer({ characters: task.characters });
  const config = makeDecoderConfig({
    ...settings.model,
    vocabSize: tokenizer.vocabSize,
    eosTokenId: tokenizer.eosTokenId ?? null,
    padTokenId: tokenizer.padTokenId ?? null,
  });
  const model = createModel(config, { seed: settings.seed });
  await model.save(paths.model);
  await tokenizer.save(paths.model);
  const parameters = model.parameters().reduce((sum, { numel }) => sum + numel, 0);
  model.dispose();
  return { paths, parameters };
}
