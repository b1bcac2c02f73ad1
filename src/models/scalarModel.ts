/**
 * A decoder with a scalar head in place of its output layer: reward models and value models. Knows the layout that
 * transformers' AutoModelForSequenceClassification with one label has on disk.
 */
import { ValueRangeError } from '../errors/index.js';
import type { Linear } from '../nn/index.js';
import type { Tensor } from '../torch/index.js';
import type { CausalLmInput } from './causalLm.js';
import { scoreDtype } from './completionStates.js';
import type { Decoder } from './decoder.js';
import type { DecoderConfig } from './decoderConfig.js';
import { HeadedModel, headedConfig } from './headedModel.js';
import { createScalarHead, readScalars, type ScalarModelOptions } from './scalarHead.js';

/** Where config.json keeps the constant that is added to every score. transformers keeps the field and adds nothing. */
export const SCORE_SHIFT = 'posttrain_score_shift';

/**
 * A decoder that gives one number per position. Its head is [1, D] without bias. Made by `createScalarModel` and
 * `loadScalarModel`; `save` writes a folder that `loadScalarModel` and transformers' AutoModelForSequenceClassification
 * open.
 */
export class ScalarModel extends HeadedModel {
  readonly task = 'SEQ_CLS';
  private shift: number;

  /** @internal Use `createScalarModel` or `loadScalarModel`. */
  constructor(trunk: Decoder, head: Linear, scoreShift = 0) {
    super(trunk, head);
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

  /** @returns [B, L] what the head reads at every position, float32, float64 for a float64 model */
  forward(input: CausalLmInput): { values: Tensor } {
    const states = this.trunk.hiddenStates(input);
    return { values: readScalars('ScalarModel', this, states, scoreDtype(this.trunk)) };
  }

  protected override savedMetadata(): Record<string, string> {
    const shift = this.shift === 0 ? {} : { [SCORE_SHIFT]: String(this.shift) };
    return { ...super.savedMetadata(), ...shift };
  }

  protected override savedConfig(): DecoderConfig {
    const { [SCORE_SHIFT]: _, ...raw } = this.config.raw;
    const shift = this.shift === 0 ? {} : { [SCORE_SHIFT]: this.shift };
    return { ...this.config, raw: { ...raw, ...shift } };
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
  const config = headedConfig(trunk.config, {
    task: 'ForSequenceClassification',
    labels: ['LABEL_0'],
    padTokenId: options.padTokenId,
  });
  return new ScalarModel(trunk.withoutHead(config), head);
}
