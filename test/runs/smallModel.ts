import { createModel, makeDecoderConfig, type Decoder } from '../../src/models/index.js';
import { createCharacterTokenizer, type Tokenizer } from '../../src/tokenizers/index.js';

/** A model of a few thousand parameters over digits and the signs of sums, with its tokenizer. */
export function smallModel({
  seed = 0,
  initializerRange = 0.2,
  characters = '0123456789+=',
} = {}): {
  model: Decoder;
  tokenizer: Tokenizer;
} {
  const tokenizer = createCharacterTokenizer({ characters });
  const config = makeDecoderConfig({
    modelType: 'llama',
    vocabSize: tokenizer.vocabSize,
    hiddenSize: 16,
    intermediateSize: 32,
    numLayers: 1,
    numHeads: 2,
    numKeyValueHeads: 1,
    tieWordEmbeddings: true,
    maxPositionEmbeddings: 64,
    initializerRange,
    eosTokenId: tokenizer.eosTokenId ?? null,
    padTokenId: tokenizer.padTokenId ?? null,
  });
  return { model: createModel(config, { seed }), tokenizer };
}

/** Writes such a model and its tokenizer as a folder. */
export async function saveSmallModel(folder: string, options = {}): Promise<string> {
  const { model, tokenizer } = smallModel(options);
  await model.save(folder);
  await tokenizer.save(folder);
  model.dispose();
  return folder;
}
