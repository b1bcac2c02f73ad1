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

/** Rows that continue prompts, several of them the same one. */
export interface ContinuedRows {
  /**
   * [N] int64: P prompts of Lp columns, one after the other, then the rows of every part. Padding stands at the right of a
   * prompt and of a row; it may be any id and changes nothing.
   */
  readonly inputIds: Tensor;
  readonly prompts: {
    /** Lp */
    readonly columns: number;
    /** P numbers from 1 to Lp */
    readonly lengths: readonly number[];
  };
  /** Rows of the same number of columns; one prompt may have rows in several parts. */
  readonly parts: readonly {
    readonly columns: number;
    /** B numbers: which of the P prompts each row continues. */
    readonly promptOf: readonly number[];
  }[];
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
   * `hiddenStates` of rows that share prompts, each prompt computed once. Not for models whose rotary positions depend on
   * how long a row is: there a prompt is another one in every row.
   *
   * @returns [N, D], in the order of `inputIds`; gradients reach a prompt from all of its rows
   */
  continuedStates(input: ContinuedRows): Tensor;

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
