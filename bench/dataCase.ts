/**
 * One process of `npm run bench -- data`: reads a file into training examples by what runs read it with, then, where rows
 * stay in the file, reads shuffled batches as a trainer does. A line of JSON is its output.
 */
import { SftConfig } from '../src/config/index.js';
import { BatchOrder, PairReader } from '../src/data/index.js';
import { describePreferences } from '../src/runs/preferenceReport.js';
import { longestOfPair } from '../src/runs/requireMemory.js';
import { ALL_ROWS } from '../src/runs/runInputs.js';
import { sftKind } from '../src/runs/sftData.js';
import { readTrainingExamples, type ExampleKind } from '../src/runs/trainingData.js';
import { loadTokenizer, type Tokenizer } from '../src/tokenizers/index.js';
import { isSource } from '../src/trainers/index.js';
import type { DataReport, DataTask } from './dataLoading.js';

/** Longer than any row. */
const MAX_LENGTH = 4096;

const task = JSON.parse(process.argv[2] ?? '') as DataTask;

async function measure<Example, Report>(
  kind: ExampleKind<Example, Report>,
  tokensOf: (example: Example) => number,
): Promise<DataReport> {
  const { path, streaming, batchRows, batchSeconds } = task;
  const config = { seed: 0, data: ALL_ROWS, streaming };
  const startedAt = performance.now();
  const { examples } = await readTrainingExamples(
    { model: 'none', data: path },
    { record: undefined, config, progress: null },
    kind,
  );
  const seconds = (performance.now() - startedAt) / 1000;
  const count = (list: readonly Example[]): number =>
    list.reduce((sum, example) => sum + tokensOf(example), 0);
  if (!isSource(examples)) {
    const read = { rows: examples.length, tokens: count(examples), seconds };
    return { read, batches: null, peakBytes: peakBytes() };
  }
  const order = new BatchOrder({ rowCount: examples.length, batchSize: batchRows, seed: 0 });
  const batches = { rows: 0, tokens: 0, seconds: 0 };
  while (batches.seconds < batchSeconds && batches.rows < examples.length) {
    const batchStartedAt = performance.now();
    const batch = await examples.read(order.next());
    batches.seconds += (performance.now() - batchStartedAt) / 1000;
    batches.rows += batch.length;
    batches.tokens += count(batch);
  }
  // What was scanned is not kept, so its tokens are those of as many rows as the batches had.
  const tokens = (batches.tokens / batches.rows) * examples.length;
  const read = { rows: examples.length, tokens, seconds };
  return { read, batches, peakBytes: peakBytes() };
}

function peakBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}

function measureTask(tokenizer: Tokenizer): Promise<DataReport> {
  if (task.content === 'pair')
    return measure(
      {
        ...{ formats: ['preference'], faulty: 'stop', lengthOf: longestOfPair },
        open: (format) => new PairReader(format, tokenizer, { maxLength: MAX_LENGTH }),
        rowName: () => 'preference row',
        describe: describePreferences,
      },
      ({ promptIds, chosenIds, rejectedIds }) =>
        promptIds.length + chosenIds.length + rejectedIds.length,
    );
  const config = SftConfig.parse({ maxLength: MAX_LENGTH });
  return measure(sftKind(tokenizer, config), ({ inputIds }) => inputIds.length);
}

const report = await measureTask(await loadTokenizer(task.tokenizer));
process.stdout.write(`${JSON.stringify(report)}\n`);
