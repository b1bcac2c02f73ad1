/**
 * The decoder of Llama, Qwen2 and Qwen3: one computation, with the families' differences as settings. It is given its
 * weights; where they come from is not its business.
 */
import { CheckpointError, DtypeError, ShapeError, ValueRangeError } from '../errors/index.js';
import {
  Attention,
  Embedding,
  GatedMlp,
  Linear,
  Module,
  RMSNorm,
  ropeInverseFrequencies,
  ropeRotation,
  type Rotation,
} from '../nn/index.js';
import {
  arange,
  eye,
  keep,
  ones,
  showShape,
  tensor,
  tidy,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import type { CausalLm, CausalLmInput, SaveOptions } from './causalLm.js';
import type { DecoderConfig } from './decoderConfig.js';
import type { JsonObject } from './jsonFields.js';
import { saveModel } from './saveModel.js';

/** One block: attention, then the feed-forward layer, each on a normalised copy and added back. */
export class DecoderLayer extends Module {
  readonly inputNorm: RMSNorm;
  readonly attention: Attention;
  readonly postAttentionNorm: RMSNorm;
  readonly mlp: GatedMlp;

  constructor(parts: {
    inputNorm: RMSNorm;
    attention: Attention;
    postAttentionNorm: RMSNorm;
    mlp: GatedMlp;
  }) {
    super();
    this.inputNorm = this.child('input_layernorm', parts.inputNorm);
    this.attention = this.child('self_attn', parts.attention);
    this.postAttentionNorm = this.child('post_attention_layernorm', parts.postAttentionNorm);
    this.mlp = this.child('mlp', parts.mlp);
  }

  /**
   * @param x [B, L, D]
   * @param mask see `Attention.forward`
   * @returns [B, L, D]
   */
  forward(x: Tensor, rotation: Rotation, mask: Tensor | null): Tensor {
    const attended = tidy(() =>
      x.add(this.attention.forward(this.inputNorm.forward(x), rotation, mask)),
    );
    return attended.add(this.mlp.forward(this.postAttentionNorm.forward(attended)));
  }
}

/** A Llama, Qwen2 or Qwen3 model. Made by `loadModel` and `createModel`. */
export class Decoder extends Module implements CausalLm {
  readonly config: DecoderConfig;
  /** generation_config.json as it was read; null where there was none. */
  readonly generationConfig: JsonObject | null;
  /** weight [V, D] */
  readonly embedTokens: Embedding;
  readonly layers: readonly DecoderLayer[];
  readonly norm: RMSNorm;
  /** The output layer of its own; null when it is tied to the embedding. */
  readonly untiedHead: Linear | null;
  private readonly inverseFrequencies: Tensor;

  /**
   * @param weights by the names of the checkpoint, shapes as `parameterShapes` says, all of one dtype and device; the
   *   decoder owns them from now on
   * @throws CheckpointError when one is missing
   */
  constructor(
    config: DecoderConfig,
    weights: ReadonlyMap<string, Tensor>,
    generationConfig: JsonObject | null = null,
  ) {
    super();
    this.config = config;
    this.generationConfig = generationConfig;
    const parts = new Parts(config, weights);
    this.embedTokens = this.child('model.embed_tokens', parts.embedding('model.embed_tokens'));
    this.layers = Array.from({ length: config.numLayers }, (_, index) => {
      const name = `model.layers.${index}`;
      return this.child(name, parts.layer(name));
    });
    this.norm = this.child('model.norm', parts.norm('model.norm'));
    this.untiedHead = config.tieWordEmbeddings
      ? null
      : this.child('lm_head', parts.linear('lm_head', false));
    const frequencies = Float32Array.from(ropeInverseFrequencies(config));
    this.inverseFrequencies = keep(tensor(frequencies, { device: this.device }));
  }

  get dtype(): Dtype {
    return this.embedTokens.weight.dtype;
  }

  get device(): string {
    return this.embedTokens.weight.device;
  }

  /** [V, D] of the output layer: the embedding's own tensor when they are tied. */
  outputWeight(): Tensor {
    return this.untiedHead?.weight ?? this.embedTokens.weight;
  }

  forward(input: CausalLmInput): { logits: Tensor } {
    return { logits: this.lmHead(this.hiddenStates(input)) };
  }

  hiddenStates({ inputIds, attentionMask, sequenceIds }: CausalLmInput): Tensor {
    assertInput(inputIds, { attentionMask, sequenceIds });
    return tidy(() => {
      const length = inputIds.size(1);
      const { device } = this;
      const ids = inputIds.to({ device });
      const { positions, mask } =
        sequenceIds !== undefined
          ? packedSight(sequenceIds.to({ device }))
          : attentionMask !== undefined
            ? paddedSight(attentionMask.to({ device }).ne(0))
            : { positions: arange(0, length, { device }), mask: null };
      const rotation = ropeRotation(this.inverseFrequencies, positions, this.dtype);
      let hidden = this.embedTokens.forward(ids);
      for (const layer of this.layers) {
        // What autograd does not hold is freed layer by layer, as it would be in Python.
        const next = tidy(() => layer.forward(hidden, rotation, mask));
        hidden.dispose();
        hidden = next;
      }
      return this.norm.forward(hidden);
    });
  }

  lmHead(hidden: Tensor): Tensor {
    return hidden.linear(this.outputWeight());
  }

  /**
   * The same layers without an output layer: one of its own is freed. They belong to the result, and this decoder must
   * not be used any more.
   *
   * @param config as this decoder's, but for what it says of the output layer and in `raw`
   */
  withoutHead(config: DecoderConfig): Decoder {
    this.untiedHead?.dispose();
    this.inverseFrequencies.dispose();
    const headless = { ...config, tieWordEmbeddings: true };
    return new Decoder(headless, this.namedParameters(), this.generationConfig);
  }

  save(folder: string, options: SaveOptions = {}): Promise<void> {
    return saveModel(this, this.generationConfig, folder, options);
  }

  override dispose(): void {
    super.dispose();
    this.inverseFrequencies.dispose();
  }
}

function assertInput(
  inputIds: Tensor,
  { attentionMask, sequenceIds }: Omit<CausalLmInput, 'inputIds'>,
): void {
  if (inputIds.ndim !== 2 || inputIds.numel === 0)
    throw new ShapeError(
      `Decoder: expected inputIds [B, L] with at least one token, received ${showShape(inputIds.shape)}.`,
    );
  if (inputIds.dtype !== 'int64' && inputIds.dtype !== 'int32')
    throw new DtypeError(`Decoder: expected inputIds of int64, received ${inputIds.dtype}.`);
  for (const [name, like] of Object.entries({ attentionMask, sequenceIds })) {
    if (like !== undefined && showShape(like.shape) !== showShape(inputIds.shape))
      throw new ShapeError(
        `Decoder: expected ${name} ${showShape(inputIds.shape)} like inputIds, received ${showShape(like.shape)}.`,
      );
  }
  if (attentionMask !== undefined && sequenceIds !== undefined)
    throw new ValueRangeError(
      'Decoder: expected attentionMask or sequenceIds, received both: 0 in sequenceIds is padding already.',
    );
}

/** Where tokens stand, and [B, 1, L, L] bool which of them a query looks at. */
interface Sight {
  /** [B, L] int64 */
  readonly positions: Tensor;
  readonly mask: Tensor;
}

/** @param valid [B, L] bool, true at tokens */
function paddedSight(valid: Tensor): Sight {
  return {
    positions: valid.cumsum(1, { dtype: 'int64' }).sub(1).clamp(0),
    mask: paddedCausalMask(valid),
  };
}

/** @param sequenceIds [B, L]: a query looks at tokens of its own sequence up to itself, as many as its position says */
function packedSight(sequenceIds: Tensor): Sight {
  const length = sequenceIds.size(1);
  const causal = ones([length, length], { dtype: 'bool', device: sequenceIds.device }).tril();
  const same = sequenceIds.unsqueeze(2).eq(sequenceIds.unsqueeze(1));
  const mask = same.logicalAnd(causal);
  return { positions: mask.sum(2, { dtype: 'int64' }).sub(1), mask: mask.unsqueeze(1) };
}

/**
 * @param valid [B, L] bool
 * @returns [B, 1, L, L] bool: a query looks at tokens up to itself, and always at itself, so that the softmax of padding
 *   has something to look at and stays finite
 */
function paddedCausalMask(valid: Tensor): Tensor {
  const length = valid.size(1);
  const { device } = valid;
  const causal = ones([length, length], { dtype: 'bool', device }).tril();
  const self = eye(length, { dtype: 'bool', device });
  return valid.unsqueeze(1).unsqueeze(1).logicalAnd(causal).logicalOr(self);
}

/** Layers made from weights by name. */
class Parts {
  private readonly config: DecoderConfig;
  private readonly weights: ReadonlyMap<string, Tensor>;

  constructor(config: DecoderConfig, weights: ReadonlyMap<string, Tensor>) {
    this.config = config;
    this.weights = weights;
  }

  private weight(name: string): Tensor {
    const weight = this.weights.get(name);
    if (weight === undefined)
      throw new CheckpointError(`Decoder: expected a tensor ${name} among the weights.`);
    return weight;
  }

  embedding(name: string): Embedding {
    return new Embedding(this.weight(`${name}.weight`));
  }

  linear(name: string, bias: boolean): Linear {
    return new Linear(this.weight(`${name}.weight`), bias ? this.weight(`${name}.bias`) : null);
  }

  norm(name: string): RMSNorm {
    return new RMSNorm(this.weight(`${name}.weight`), this.config.rmsNormEps);
  }

  layer(name: string): DecoderLayer {
    const { attentionBias, attentionOutputBias, mlpBias, qkNorm, headDim } = this.config;
    const attention = `${name}.self_attn`;
    const mlp = `${name}.mlp`;
    return new DecoderLayer({
      inputNorm: this.norm(`${name}.input_layernorm`),
      attention: new Attention(
        {
          qProj: this.linear(`${attention}.q_proj`, attentionBias),
          kProj: this.linear(`${attention}.k_proj`, attentionBias),
          vProj: this.linear(`${attention}.v_proj`, attentionBias),
          oProj: this.linear(`${attention}.o_proj`, attentionOutputBias),
          qNorm: qkNorm ? this.norm(`${attention}.q_norm`) : null,
          kNorm: qkNorm ? this.norm(`${attention}.k_norm`) : null,
        },
        { headDim },
      ),
      postAttentionNorm: this.norm(`${name}.post_attention_layernorm`),
      mlp: new GatedMlp({
        gateProj: this.linear(`${mlp}.gate_proj`, mlpBias),
        upProj: this.linear(`${mlp}.up_proj`, mlpBias),
        downProj: this.linear(`${mlp}.down_proj`, mlpBias),
      }),
    });
  }
}
