/** One block of a decoder, and its making from weights by name. */
import { CheckpointError } from '../errors/index.js';
import {
  Attention,
  Embedding,
  ExpertMlp,
  LayerNorm,
  Linear,
  Mlp,
  Module,
  RMSNorm,
  type NamedLinear,
  type Rotation,
  type SharedPrompts,
} from '../nn/index.js';
import { tidy, type Tensor } from '../torch/index.js';
import { checkpointNames, type CheckpointNames } from './checkpointNames.js';
import type { DecoderConfig, LayerKind } from './decoderConfig.js';

/** A normalisation of any family. */
export type Norm = RMSNorm | LayerNorm;

/** What a block is made of. */
export interface DecoderLayerParts {
  readonly kind: LayerKind;
  readonly inputNorm: Norm;
  readonly attention: Attention;
  /** Normalises what attention computed, before it is added (Gemma); null without. */
  readonly attentionOutputNorm: Norm | null;
  readonly mlpNorm: Norm;
  readonly mlp: Mlp | ExpertMlp;
  /** The same for the feed-forward layer. */
  readonly mlpOutputNorm: Norm | null;
}

/** One block: attention, then the feed-forward layer, each on a normalised copy and added back. */
export class DecoderLayer extends Module implements DecoderLayerParts {
  readonly kind: LayerKind;
  readonly inputNorm: Norm;
  readonly attention: Attention;
  readonly attentionOutputNorm: Norm | null;
  readonly mlpNorm: Norm;
  readonly mlp: Mlp | ExpertMlp;
  readonly mlpOutputNorm: Norm | null;

  constructor(parts: DecoderLayerParts, names: CheckpointNames) {
    super();
    const optional = (name: string | null, norm: Norm | null): Norm | null =>
      name === null || norm === null ? null : this.child(name, norm);
    this.kind = parts.kind;
    this.inputNorm = this.child(names.inputNorm, parts.inputNorm);
    this.attention = this.child(names.attention, parts.attention);
    this.attentionOutputNorm = optional(names.attentionOutputNorm, parts.attentionOutputNorm);
    this.mlpNorm = this.child(names.mlpNorm, parts.mlpNorm);
    this.mlp = this.child(names.mlp, parts.mlp);
    this.mlpOutputNorm = optional(names.mlpOutputNorm, parts.mlpOutputNorm);
  }

  /**
   * @param x [B, L, D], or [N, D] with shared prompts
   * @param rotation see `Attention.forward`
   * @param sight see `Attention.forward`
   * @returns the shape of x
   */
  forward(x: Tensor, rotation: Rotation | null, sight: Tensor | null | SharedPrompts): Tensor {
    const attended = tidy(() => {
      const mixed = this.attention.forward(x, rotation, sight, this.inputNorm);
      return x.add(this.attentionOutputNorm?.forward(mixed) ?? mixed);
    });
    const { mlp, mlpNorm } = this;
    const changed =
      mlp instanceof Mlp ? mlp.forward(attended, mlpNorm) : mlp.forward(mlpNorm.forward(attended));
    return attended.add(this.mlpOutputNorm?.forward(changed) ?? changed);
  }
}

/** Layers made from weights by name. */
export class DecoderParts {
  private readonly config: DecoderConfig;
  private readonly weights: ReadonlyMap<string, Tensor>;
  private readonly names: CheckpointNames;

  constructor(config: DecoderConfig, weights: ReadonlyMap<string, Tensor>) {
    this.config = config;
    this.weights = weights;
    this.names = checkpointNames(config);
  }

  private weight(name: string): Tensor {
    const weight = this.weights.get(name);
    if (weight === undefined)
      throw new CheckpointError(`Decoder: expected a tensor ${name} among the weights.`);
    return weight;
  }

  embedding(name: string, scale = 1): Embedding {
    return new Embedding(this.weight(`${name}.weight`), scale);
  }

  linear(name: string, bias: boolean): Linear {
    return new Linear(this.weight(`${name}.weight`), bias ? this.weight(`${name}.bias`) : null);
  }

  norm(name: string): Norm {
    const { norm, rmsNormEps } = this.config;
    return norm === 'layer'
      ? new LayerNorm(this.weight(`${name}.weight`), this.weight(`${name}.bias`), rmsNormEps)
      : this.rmsNorm(name);
  }

  private rmsNorm(name: string): RMSNorm {
    const { norm, rmsNormEps } = this.config;
    return new RMSNorm(this.weight(`${name}.weight`), rmsNormEps, {
      plusOne: norm === 'rmsPlusOne',
    });
  }

  /** Layers below `parent`, by their own names. */
  private sides(parent: string, names: readonly string[], bias: boolean): NamedLinear[] {
    return names.map((name) => [name, this.linear(`${parent}.${name}`, bias)]);
  }

  private attention(name: string): Attention {
    const { config, names } = this;
    const output = this.linear(`${name}.${names.attentionOutput}`, config.attentionOutputBias);
    return new Attention(
      {
        projections: this.sides(name, names.projections, config.attentionBias),
        output: [names.attentionOutput, output],
        qNorm: config.qkNorm ? this.rmsNorm(`${name}.q_norm`) : null,
        kNorm: config.qkNorm ? this.rmsNorm(`${name}.k_norm`) : null,
      },
      {
        numHeads: config.numHeads,
        numKeyValueHeads: config.numKeyValueHeads,
        headDim: config.headDim,
        scale: config.attentionScale,
        softcap: config.attentionSoftcap,
      },
    );
  }

  private mlp(name: string): Mlp {
    const { names } = this;
    const { activation, gatedMlp: gated, mlpBias } = this.config;
    const output = this.linear(`${name}.${names.mlpOutput}`, mlpBias);
    return new Mlp(
      {
        inputs: this.sides(name, names.mlpInputs, mlpBias),
        output: [names.mlpOutput, output],
      },
      { activation, gated },
    );
  }

  private feedForward(name: string, layer: number): Mlp | ExpertMlp {
    const { experts } = this.config;
    if (!experts?.layers[layer]) return this.mlp(name);
    return new ExpertMlp(
      {
        router: this.linear(`${name}.gate`, false),
        experts: Array.from({ length: experts.numExperts }, (_, expert) =>
          this.mlp(`${name}.experts.${expert}`),
        ),
      },
      experts,
    );
  }

  layer(index: number): DecoderLayer {
    const { names } = this;
    const name = names.layer(index);
    const optional = (own: string | null): Norm | null =>
      own === null ? null : this.norm(`${name}.${own}`);
    return new DecoderLayer(
      {
        kind: this.config.layerKinds[index] ?? 'full',
        inputNorm: this.norm(`${name}.${names.inputNorm}`),
        attention: this.attention(`${name}.${names.attention}`),
        attentionOutputNorm: optional(names.attentionOutputNorm),
        mlpNorm: this.norm(`${name}.${names.mlpNorm}`),
        mlp: this.feedForward(`${name}.${names.mlp}`, index),
        mlpOutputNorm: optional(names.mlpOutputNorm),
      },
      names,
    );
  }
}
