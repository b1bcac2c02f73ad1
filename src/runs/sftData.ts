/** What supervised fine-tuning reads of rows, and what it tells of them. */
import type { SftConfig } from '../config/index.js';
import { SftReader, type SftExample, type SftReport, type TextTokenizer } from '../data/index.js';
import { counted } from '../errors/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { describeFormat, tellExample } from './examplePreview.js';
import type { ProgressStream } from './progress.js';
import type { ExampleKind } from './trainingData.js';

/** How examples of supervised fine-tuning are made. */
export function sftKind(
  tokenizer: TextTokenizer,
  config: SftConfig,
): ExampleKind<SftExample, SftReport> {
  return {
    formats: ['language-modeling', 'prompt-completion'],
    faulty: 'stop',
    open: (format) => new SftReader(format, tokenizer, config),
    rowName: (format) => `${describeFormat(format)} row`,
    describe,
    lengthOf: ({ inputIds }) => inputIds.length,
  };
}

/** Shows an example with what is trained of it. */
export function tellSftExample(
  progress: ProgressStream | null,
  tokenizer: Tokenizer,
  example: SftExample | undefined,
): void {
  if (example === undefined) return;
  const { row, inputIds: ids, completionMask } = example;
  tellExample(progress, tokenizer, row, [{ ids, isTrained: (at) => completionMask[at] === 1 }]);
}

function describe(report: SftReport): string {
  const { examples, trainedTokens, truncated, dropped, boundaryMerges, withoutEos } = report;
  const remarks = [
    [truncated, 'cut at maxLength'],
    [dropped, 'left out'],
    [boundaryMerges, 'tokenized apart at the end of a part'],
    [withoutEos, 'without an end token'],
  ] as const;
  const found = remarks.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  const counts = [counted(examples, 'example'), counted(trainedTokens, 'trained token')];
  return [...counts, ...found].join(', ');
}
