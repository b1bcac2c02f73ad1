/** What training and generation ask of a language model, whatever its architecture. */
import type { Dtype, Tensor } from '../torch/index.js';
import type { DecoderConfig } from './decoderConfig.js';

/** A batch of token sequences. */
export interface CausalLmInput {
  /** [B, L] int64, each from 0 to V − 1, padding included. */
  readonly inputIds: Tensor;
  /**
   * [B, L], not 0 where there is a token and 0 where there is padding, at either side. Positions count tokens only. Not
   * needed where padding stands at the right and its outputs are not used: no token looks to its right. Only models whose
   * rotary positions depend on how long a row is (dynamic, longrope) must be told where it ends.
   */
  readonly attentionMask?: Tensor | undefined;
  /**
   * [B, L] integers, where rows hold several sequences: tokens with the same number are one sequence, whose positions
   * begin at 0 and which sees nothing of the others. 0 marks padding. Given instead of `attentionMask`.
   */
  readonly sequenceIds?: Tensor | undefined;
}

/** Options of `save`. */
export interface SaveOptions {
  /** Weights go to several files when they are larger than this in bytes: 5 GB unless said, as in transformers 4. */
  readonly maxShardBytes?: number | undefined;
}

/** A causal language model. */
export interface CausalLm {
  readonly config: DecoderConfig;
  readonly dtype: Dtype;
  readonly device: string;

  /** @returns logits [B, L, V]: those at position t score the token at t + 1 */
  forward(input: CausalLmInput): { logits: Tensor };

  /** @returns [B, L, D] after the final normalisation: what `lmHead` takes */
  hiddenStates(input: CausalLmInput): Tensor;

  /**
   * @param hidden [..., D] from `hiddenStates`
   * @returns logits [..., V]
   */
  lmHead(hidden: Tensor): Tensor;

  /** Parameters by the names of the checkpoint; tied ones once. */
  namedParameters(): Map<string, Tensor>;

  /** Parameters, tied ones once. */
  parameters(): Tensor[];

  /** No parameter requires a gradient from now on. */
  freeze(): this;

  /**
   * Writes a folder that `loadModel` and transformers open: config.json, generation_config.json and safetensors. Each
   * file is replaced as a whole.
   *
   * @throws IoError with the path when writing fails
   */
  save(folder: string, options?: SaveOptions): Promise<void>;

  /** Frees the parameters. */
  dispose(): void;
}
