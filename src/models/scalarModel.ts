/**
 * A decoder with a scalar head in place of its output layer: reward models and value models. Knows the layout that
 * transformers' AutoModelForSequenceClassification with one label has on disk.
 */
import { Module, type Linear } from '../nn/index.js';
import type { Dtype, Tensor } from '../torch/index.js';
import type { CausalLmInput, SaveOptions } from './causalLm.js';
import { scoreDtype } from './completionStates.js';
import type { Decoder } from './decoder.js';
import type { DecoderConfig } from './decoderConfig.js';
import { createScalarHead, readScalars, type ScalarHeadOptions } from './scalarHead.js';
import { saveModel } from './saveModel.js';

/** A decoder that gives one number per position. Made by `createScalarModel` and `loadScalarModel`. */
export class ScalarModel extends Module {
  /** The decoder below the head. It has no output layer of its own: its `lmHead` is not meant to be used. */
  readonly trunk: Decoder;
  /** [1, D] without bias. Checkpoint key: `score.weight`. */
  readonly head: Linear;

  /** @internal Use `createScalarModel` or `loadScalarModel`. */
  constructor(trunk: Decoder, head: Linear) {
    super();
    this.trunk = trunk;
    this.head = this.child('score', head);
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
    return { values: readScalars('ScalarModel', this.head, states, scoreDtype(this.trunk)) };
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
    return saveModel(this, this.trunk.generationConfig, folder, options);
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
export function createScalarModel(trunk: Decoder, options: ScalarHeadOptions = {}): ScalarModel {
  const head = createScalarHead(trunk, options);
  return new ScalarModel(trunk.withoutHead(scalarConfig(trunk.config)), head);
}

/** The configuration of a scalar model on the trunk that `config` describes: config.json names it and its one label. */
function scalarConfig(config: DecoderConfig): DecoderConfig {
  const architecture = SCALAR_ARCHITECTURES[config.modelType];
  const raw = {
    ...config.raw,
    architectures: [architecture],
    id2label: { 0: 'LABEL_0' },
    label2id: { LABEL_0: 0 },
  };
  return { ...config, raw };
}

const SCALAR_ARCHITECTURES = {
  llama: 'LlamaForSequenceClassification',
  qwen2: 'Qwen2ForSequenceClassification',
  qwen3: 'Qwen3ForSequenceClassification',
} as const;
