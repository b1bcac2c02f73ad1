import { existsSync, readdirSync } from 'node:fs';
import type { Command } from 'commander';
import { IoError, UsageError } from '../../errors/index.js';
import type { Tokenizer } from '../../tokenizers/index.js';
import { asCount, asPositive, collect, withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';

interface InitOptions {
  readonly out: string;
  readonly text?: readonly string[];
  readonly characters?: string;
  readonly vocabSize: number;
  readonly family: string;
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads?: number;
  readonly intermediateSize?: number;
  readonly maxLength: number;
  readonly seed: number;
  readonly json?: boolean;
}

/** Adds `init`. */
export function registerInit(program: Command, { io }: CommandContext): void {
  const command = program
    .command('init')
    .description('make a random model and a tokenizer, to train from nothing')
    .requiredOption('--out <folder>', 'where to; a new or empty folder')
    .option(
      '--text <file>',
      'rows {text} to learn a byte-level BPE tokenizer from; repeatable',
      collect,
    )
    .option('--characters <text>', 'one token per character of this alphabet instead')
    .option('--vocab-size <n>', 'most tokens of a learned tokenizer', asPositive, 4096)
    .option(
      '--family <name>',
      'llama, mistral, qwen2, qwen3, qwen3_moe, gemma2, gemma3_text, phi3 or gpt2',
      'llama',
    )
    .option('--hidden-size <n>', 'width of the model', asPositive, 128)
    .option(
      '--intermediate-size <n>',
      'width inside feed-forward layers (default: 8/3 of the width)',
      asPositive,
    )
    .option('--layers <n>', 'number of layers', asPositive, 4)
    .option('--heads <n>', 'attention heads', asPositive, 4)
    .option('--kv-heads <n>', 'heads of keys and values (default: as many as heads)', asPositive)
    .option('--max-length <n>', 'longest text it is made for, in tokens', asPositive, 1024)
    .option('--seed <n>', 'seed of the weights', asCount, 0);
  withExample(
    withJson(command),
    'posttrain init --out ./tiny --text corpus.jsonl --vocab-size 2048',
    'posttrain init --out ./sums --characters "0123456789+=" --max-length 64',
  );
  command.action(async (options: InitOptions) => {
    const { out } = options;
    if (existsSync(out) && readdirSync(out).length > 0)
      throw new IoError(
        `init: expected a new or empty folder, but ${out} holds something already.`,
      );
    const { createModel, makeDecoderConfig, MODEL_TYPES } = await import('../../models/index.js');
    const modelType = MODEL_TYPES.find((name) => name === options.family);
    if (modelType === undefined)
      throw new UsageError(
        `--family: expected ${MODEL_TYPES.join(', ')}, received ${options.family}.`,
      );
    const tokenizer = await makeTokenizer(options);
    const config = makeDecoderConfig({
      modelType,
      vocabSize: tokenizer.vocabSize,
      hiddenSize: options.hiddenSize,
      // Three matrices instead of two: 8/3 of the width keeps the parameters of a plain layer (Shazeer 2020).
      intermediateSize:
        options.intermediateSize ?? Math.ceil((options.hiddenSize * 8) / 3 / 32) * 32,
      numLayers: options.layers,
      numHeads: options.heads,
      numKeyValueHeads: options.kvHeads ?? options.heads,
      maxPositionEmbeddings: options.maxLength,
      tieWordEmbeddings: true,
      eosTokenId: tokenizer.eosTokenId ?? null,
      padTokenId: tokenizer.padTokenId ?? null,
    });
    const model = createModel(config, { seed: options.seed });
    await model.save(out);
    await tokenizer.save(out);
    const parameters = model.parameters().reduce((sum, { numel }) => sum + numel, 0);
    const result = { model: out, parameters, vocabSize: tokenizer.vocabSize };
    io.out(
      options.json === true
        ? JSON.stringify(result)
        : `Made ${out}: ${parameters.toLocaleString('en')} parameters, ${tokenizer.vocabSize} tokens.\nTrain it: posttrain train sft --model ${out} --data train.jsonl --out runs/first --set learningRate=1e-3`,
    );
  });
}

async function makeTokenizer({ characters, text, vocabSize }: InitOptions): Promise<Tokenizer> {
  const { createBpeTokenizer, createCharacterTokenizer } =
    await import('../../tokenizers/index.js');
  if ((characters === undefined) === (text === undefined))
    throw new UsageError('init: expected either --text or --characters.', {
      hint: '--text learns a tokenizer, --characters makes one of an alphabet.',
    });
  if (characters !== undefined) return createCharacterTokenizer({ characters });
  const { readRows } = await import('../../data/index.js');
  const rows = await readRows(text ?? []);
  const texts = rows.flatMap(({ values }) =>
    ['text', 'prompt', 'completion'].flatMap((column) => {
      const value = values[column];
      return typeof value === 'string' ? [value] : [];
    }),
  );
  return createBpeTokenizer({ texts, vocabSize });
}
