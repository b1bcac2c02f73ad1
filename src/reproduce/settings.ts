/** The model of the experiments, except where one needs longer texts: the quickstart's. */
import type { DecoderOptions } from '../models/index.js';
import { MODEL } from '../quickstart/settings.js';

/** A Llama-shaped decoder with 0.6 million parameters, for texts of at most `positions` characters. */
export function smallDecoder(positions: number): Omit<DecoderOptions, 'vocabSize'> {
  return { ...MODEL, maxPositionEmbeddings: positions };
}

/** A decoder of a few thousand parameters, for tests. */
export function tinyDecoder(positions: number): Omit<DecoderOptions, 'vocabSize'> {
  return {
    hiddenSize: 16,
    intermediateSize: 24,
    numLayers: 1,
    numHeads: 2,
    tieWordEmbeddings: true,
    maxPositionEmbeddings: positions,
    initializerRange: 0.3,
  };
}
