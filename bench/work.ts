/** How much a cell computes and reads at least, by its shape. Both sides' shares of the machine are taken of the same. */
import type { ComputeDtype, GenerateJob, ModelShape, TrainJob } from './jobs.js';

/** Of one token that a cell counts. */
export interface Work {
  /** Floating-point operations, a multiplication and an addition being two. */
  readonly flops?: number;
  /** Bytes of memory. */
  readonly bytes?: number;
}

/** The matrices of a model: [out, in], and how many of them there are. */
export function matricesOf(shape: ModelShape): { out: number; in: number; times: number }[] {
  const { hiddenSize, intermediateSize, numLayers, numHeads, numKeyValueHeads, vocabSize } = shape;
  const keysAndValues = 2 * numKeyValueHeads * (hiddenSize / numHeads);
  return [
    { out: hiddenSize + keysAndValues, in: hiddenSize, times: numLayers },
    { out: hiddenSize, in: hiddenSize, times: numLayers },
    { out: 2 * intermediateSize, in: hiddenSize, times: numLayers },
    { out: hiddenSize, in: intermediateSize, times: numLayers },
    { out: vocabSize, in: hiddenSize, times: 1 },
  ];
}

/** Numbers in the matrices of the layers, and in the output layer, which is the embedding too. */
export function weightsOf(shape: ModelShape): { layers: number; head: number } {
  const matrices = matricesOf(shape);
  const head = shape.vocabSize * shape.hiddenSize;
  const whole = matrices.reduce((sum, { out, in: inputs, times }) => sum + out * inputs * times, 0);
  return { layers: whole - head, head };
}

/**
 * A step of sft, dpo or reward, per token of its rows: forward and backward are 6 operations for each weight that a token
 * meets, attention of T tokens 6·T·d in each layer (half of the square, forward and twice backward), and the reference of
 * DPO a third of it once more. The output layer counts where something is learnt: at every token but the last of a text,
 * at the completions of pairs, and not at all with a scalar head.
 *
 * A prompt counts for each completion of a pair, as without sharing: a side that computes it once can reach more than all.
 *
 * @returns nothing for methods that sample: their rollouts are limited by memory, their updates by products
 */
export function trainingWork({ method, shape, tokens, promptTokens }: TrainJob): Work {
  if (method === 'grpo' || method === 'ppo') return {};
  const { layers, head } = weightsOf(shape);
  const predicted = { sft: tokens - 1, dpo: tokens - promptTokens, reward: 0 }[method];
  const attention = shape.numLayers * shape.hiddenSize * tokens;
  const flops = 6 * (layers + (head * predicted) / tokens + attention);
  return { flops: method === 'dpo' ? (4 / 3) * flops : flops };
}

/** Decoding one row: every weight is read once for each token. With more rows, reading is shared and says little. */
export function decodingWork({ shape, dtype, batch }: GenerateJob): Work {
  if (batch > 1) return {};
  const { layers, head } = weightsOf(shape);
  return { bytes: (layers + head) * bytesOf(dtype) };
}

/** Of one number. */
export function bytesOf(dtype: ComputeDtype): number {
  return dtype === 'float32' ? 4 : 2;
}
