/**
 * A decoder with a scalar head in place of its output layer: reward models and value models. Knows the layout that
 * transformers' AutoModelForSequenceClassification with one label has on disk.
 */
import { ValueRangeError } from '../errors/index.js';
import { Module, type Linear } from '../nn/index.js';
import type { Dtype, Tensor } from '../torch/index.js';
import type { CausalLmInput, SaveOptions } from './causalLm.js';
import { scoreDtype } from './completionStates.js';
import type { Decoder } from './decoder.js';
import type { DecoderConfig } from './decoderConfig.js';
import { createScalarHead, readScalars, type ScalarModelOptions } from './scalarHead.js';
import { saveModel } from './saveModel.js';

/** Where config.json keeps the constant that is added to every score. transformers keeps the field and adds nothing. */
export const SCORE_SHIFT = 'posttrain_score_shift';

/** A decoder that gives one number per position. Made by `createScalarModel` and `loadScalarModel`. */
export class ScalarModel extends Module {
  /** The decoder below the head. It has no output layer of its own: its `lmHead` is not meant to be used. */
  readonly trunk: Decoder;
  /** [1, D] without bias. Checkpoint key: `score.weight`. */
  readonly head: Linear;
  private shift: number;

  /** @internal Use `createScalarModel` or `loadScalarModel`. */
  constructor(trunk: Decoder, head: Linear, scoreShift = 0) {
    super();
    this.trunk = trunk;
    this.head = this.child('score', head);
    this.shift = scoreShift;
  }

  /** What is added to everything that the head reads. It is not trained. */
  get scoreShift(): number {
    return this.shift;
  }

  /**
   * Adds a constant to every score from now on.
   *
   * The layout of AutoModelForSequenceClassification has no bias, and none can be folded into its weights: the states
   * come out of a normalisation that has none either. The constant therefore stands in config.json, under
   * `posttrain_score_shift`. transformers does not know it and reads scores without it, which are in the same order.
   *
   * @throws ValueRangeError unless `by` is finite
   */
  shiftScores(by: number): void {
    if (!Number.isFinite(by))
      throw new ValueRangeError(`shiftScores: expected a finite number, received ${by}.`);
    this.shift += by;
  }

  get config(): DecoderConfig {
    return this.trunk.config;
  }

  get dtype(): Dtype {
    return this.trunk.dtype;
  }

  get device(): string {
    return this.trunk.device;
  }

  /** @returns [B, L] what the head reads at every position, float32, float64 for a float64 model */
  forward(input: CausalLmInput): { values: Tensor } {
    const states = this.trunk.hiddenStates(input);
    return { values: readScalars('ScalarModel', this, states, scoreDtype(this.trunk)) };
  }

  /** Parameters by the names of the checkpoint: the trunk's, then `score.weight`. */
  override namedParameters(): Map<string, Tensor> {
    return new Map([...this.trunk.namedParameters(), ...super.namedParameters()]);
  }

  /**
   * Writes a folder that `loadScalarModel` and transformers' AutoModelForSequenceClassification open. transformers finds
   * a row's last token by `pad_token_id` and refuses batches where config.json names none.
   *
   * @throws IoError with the path when writing fails
   */
  save(folder: string, options: SaveOptions = {}): Promise<void> {
    const { [SCORE_SHIFT]: _, ...raw } = this.config.raw;
    const shift = this.shift === 0 ? {} : { [SCORE_SHIFT]: this.shift };
    const saved = {
      config: { ...this.config, raw: { ...raw, ...shift } },
      dtype: this.dtype,
      namedParameters: () => this.namedParameters(),
    };
    return saveModel(saved, this.trunk.generationConfig, folder, options);
  }

  override dispose(): void {
    this.trunk.dispose();
    this.head.dispose();
  }
}

/**
 * A reward or value model that begins as a language model with a new head, see `createScalarHead`. It owns the trunk
 * from now on and frees its output layer, where it has one of its own; the decoder that was given must not be used.
 *
 * @throws ValueRangeError unless `std` is positive
 */
export function createScalarModel(trunk: Decoder, options: ScalarModelOptions = {}): ScalarModel {
  const head = createScalarHead(trunk, options);
  return new ScalarModel(trunk.withoutHead(scalarConfig(trunk.config, options)), head);
}

/** The configuration of a scalar model on the trunk that `config` describes: config.json names it and its one label. */
function scalarConfig(config: DecoderConfig, options: ScalarModelOptions): DecoderConfig {
  const architecture = SCALAR_ARCHITECTURES[config.modelType];
  const padTokenId = config.padTokenId ?? options.padTokenId ?? null;
  const raw = {
    ...config.raw,
    architectures: [architecture],
    id2label: { 0: 'LABEL_0' },
    label2id: { LABEL_0: 0 },
    ...(padTokenId !== null && { pad_token_id: padTokenId }),
  };
  return { ...config, padTokenId, raw };
}

const SCALAR_ARCHITECTURES = {
  llama: 'LlamaForSequenceClassification',
  qwen2: 'Qwen2ForSequenceClassification',
  qwen3: 'Qwen3ForSequenceClassification',
} as const;
