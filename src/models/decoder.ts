/**
 * The decoder of Llama, Mistral, Qwen, Gemma, Phi-3 and GPT-2: one computation, with the families' differences as
 * settings. It is given its weights; where they come from is not its business.
 */
import { DtypeError, ShapeError, ValueRangeError } from '../errors/index.js';
import {
  Module,
  ropeAttentionFactor,
  ropeInverseFrequencies,
  ropeLength,
  ropeRotation,
  type Embedding,
  type Linear,
  type RopeSettings,
  type Rotation,
} from '../nn/index.js';
import {
  autocast,
  checkpoint,
  keep,
  putToRest,
  showShape,
  tensor,
  tidy,
  type Dtype,
  type NotPromise,
  type Tensor,
} from '../torch/index.js';
import { moveAdapter, trainedParameters, type Adapter } from './adapter.js';
import { saveAdapter } from './adapterFolder.js';
import type { CausalLm, CausalLmInput, ContinuedRows, SaveOptions } from './causalLm.js';
import { checkpointNames } from './checkpointNames.js';
import { FULL_PRECISION, type ComputeSettings } from './computeSettings.js';
import { continuedSight } from './continuation.js';
import { ropeSettings, type DecoderConfig, type LayerKind } from './decoderConfig.js';
import { DecoderParts, type DecoderLayer, type Norm } from './decoderLayer.js';
import type { JsonObject } from './jsonFields.js';
import { saveModel } from './saveModel.js';
import { sightOf, sightTensors, withSightTensors, type LayerSight, type Sight } from './sight.js';

interface LayerViews {
  readonly rotations: Readonly<Record<LayerKind, Rotation | null>>;
  readonly sights: Readonly<Record<LayerKind, LayerSight>>;
}

/** A model of any family. Made by `loadModel` and `createModel`. */
export class Decoder extends Module implements CausalLm {
  readonly config: DecoderConfig;
  /** generation_config.json as it was read; null where there was none. */
  readonly generationConfig: JsonObject | null;
  /** weight [V, D] */
  readonly embedTokens: Embedding;
  /** weight [positions, D]; null where positions are rotary. */
  readonly embedPositions: Embedding | null;
  readonly layers: readonly DecoderLayer[];
  readonly norm: Norm;
  /** The output layer of its own; null when it is tied to the embedding. */
  readonly untiedHead: Linear | null;
  /** In which numbers it computes. */
  compute: ComputeSettings = FULL_PRECISION;
  /** Whether its weights wait on the disk between uses, see `rest`. */
  rests = false;
  /** Set by what puts an adapter on the layers; null without one. */
  adapter: Adapter | null = null;
  /** Frequencies of rows within the original context, per kind of layer; both are one where they are the same. */
  private readonly inverseFrequencies: Readonly<Record<LayerKind, Tensor>>;

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
    const parts = new DecoderParts(config, weights);
    const names = checkpointNames(config);
    this.embedTokens = this.child(
      names.embedding,
      parts.embedding(names.embedding, config.embeddingScale),
    );
    this.embedPositions =
      names.positions === null
        ? null
        : this.child(names.positions, parts.embedding(names.positions));
    this.layers = Array.from({ length: config.numLayers }, (_, index) =>
      this.child(names.layer(index), parts.layer(index)),
    );
    this.norm = this.child(names.finalNorm, parts.norm(names.finalNorm));
    this.untiedHead = config.tieWordEmbeddings
      ? null
      : this.child(names.head, parts.linear(names.head, false));
    const frequencies = (kind: LayerKind): Tensor =>
      keep(frequenciesOf(ropeSettings(config, kind), 0, this.device));
    const full = frequencies('full');
    const sliding = config.localRope === null ? full : frequencies('sliding');
    this.inverseFrequencies = { full, sliding };
  }

  get dtype(): Dtype {
    return this.embedTokens.weight.dtype;
  }

  /** Of its products: what decides how far two ways to compute the same may be apart. */
  get computeDtype(): Dtype {
    return this.compute.precision === 'full' ? this.dtype : 'bfloat16';
  }

  get device(): string {
    return this.embedTokens.weight.device;
  }

  /** [V, D] that the output layer acts as: the embedding's own tensor when they are tied. */
  outputWeight(): Tensor {
    return this.untiedHead?.effectiveWeight() ?? this.embedTokens.weight;
  }

  /** Parameters that training changes, by name: all, or what `save` writes of a model with an adapter. */
  trainedParameters(): Map<string, Tensor> {
    return trainedParameters(this.adapter, this.namedParameters());
  }

  forward(input: CausalLmInput): { logits: Tensor } {
    return { logits: this.lmHead(this.hiddenStates(input)) };
  }

  hiddenStates(input: CausalLmInput): Tensor {
    assertInput(input);
    const { maxPositionEmbeddings, learnedPositions } = this.config;
    return tidy(() => {
      const sight = sightOf(this.config, input, this.device);
      const columns = input.inputIds.size(1);
      if (learnedPositions && columns > maxPositionEmbeddings)
        assertPositions(sight.positions, maxPositionEmbeddings);
      const rotations = this.rotations(sight, columns);
      return this.run(input.inputIds, sight.positions, { rotations, sights: sight.masks });
    });
  }

  continuedStates(input: ContinuedRows): Tensor {
    if (frequenciesDependOnLength(this.config))
      throw new ValueRangeError(
        'Decoder: expected rotary positions that do not depend on the length of a row where rows share prompts.',
      );
    return tidy(() => {
      const { positions, sights } = continuedSight(this.config, input, this);
      if (this.config.learnedPositions)
        assertPositions(positions, this.config.maxPositionEmbeddings);
      const rotations = this.rotations({ positions, lengths: null }, 0);
      return this.run(input.inputIds, positions, { rotations, sights });
    });
  }

  /** @returns the shape of `ids` and D */
  private run(ids: Tensor, positions: Tensor, { rotations, sights }: LayerViews): Tensor {
    let hidden = this.embed(ids.to({ device: this.device }), positions);
    this.inPrecision(() => {
      for (const layer of this.layers) {
        const { kind } = layer;
        // What autograd does not hold is freed layer by layer, as it would be in Python.
        const next = tidy(() => this.layerOutput(layer, hidden, rotations[kind], sights[kind]));
        hidden.dispose();
        hidden = next;
      }
    });
    return this.norm.forward(hidden);
  }

  private layerOutput(
    layer: DecoderLayer,
    hidden: Tensor,
    rotation: Rotation | null,
    sight: LayerSight,
  ): Tensor {
    if (!this.compute.gradientCheckpointing) return layer.forward(hidden, rotation, sight);
    const turning = rotation ? [rotation.cos, rotation.sin] : [];
    return checkpoint(
      (input, ...rest) => {
        const [cos, sin] = rest;
        const turned = rotation && cos && sin ? { cos, sin } : null;
        const seen = withSightTensors(sight, rest.slice(turning.length));
        // In the backward pass nobody else switches autocast on.
        return this.inPrecision(() => layer.forward(input, turned, seen));
      },
      [hidden, ...turning, ...sightTensors(sight)],
    );
  }

  /** Runs products in the precision of `compute`. The state of autocast is restored, also when `callback` throws. */
  private inPrecision<Result>(callback: () => NotPromise<Result>): Result {
    if (this.compute.precision === 'full') return callback();
    return autocast({ device: this.device, dtype: 'bfloat16' }, callback);
  }

  private embed(ids: Tensor, positions: Tensor): Tensor {
    const embedded = this.embedTokens.forward(ids);
    return this.embedPositions === null
      ? embedded
      : embedded.add(this.embedPositions.forward(positions));
  }

  private rotations(
    { positions, lengths }: Pick<Sight, 'positions' | 'lengths'>,
    columns: number,
  ): Readonly<Record<LayerKind, Rotation | null>> {
    if (this.config.learnedPositions) return { full: null, sliding: null };
    const rotation = (kind: LayerKind): Rotation => {
      const settings = ropeSettings(this.config, kind);
      const factor = ropeAttentionFactor(settings);
      const frequencies = this.inverseFrequencies[kind];
      // Only where some row may be longer than the original context do lengths have to be looked at.
      if (ropeLength(settings, columns) === ropeLength(settings, 0))
        return ropeRotation(frequencies, positions, this.dtype, factor);
      const perToken = frequenciesOf(settings, lengths ?? columns, this.device);
      return ropeRotation(perToken, positions, this.dtype, factor);
    };
    const full = rotation('full');
    return { full, sliding: this.config.localRope === null ? full : rotation('sliding') };
  }

  lmHead(hidden: Tensor): Tensor {
    const { untiedHead, embedTokens, config, compute, dtype } = this;
    const is16Bit = dtype === 'bfloat16' || dtype === 'float16';
    if (compute.float32Head && is16Bit) {
      const weight = untiedHead?.effectiveWeight() ?? embedTokens.weight;
      return capLogits(hidden.to('float32').linear(weight.to('float32')), config);
    }
    const logits = (): Tensor => untiedHead?.forward(hidden) ?? hidden.linear(embedTokens.weight);
    return capLogits(compute.float32Head ? logits() : this.inPrecision(logits), config);
  }

  /**
   * The same layers without an output layer: one of its own is freed. They belong to the result, and this decoder must
   * not be used any more.
   *
   * @param config as this decoder's, but for what it says of the output layer and in `raw`
   */
  withoutHead(config: DecoderConfig): Decoder {
    this.untiedHead?.dispose();
    this.disposeFrequencies();
    const headless = { ...config, tieWordEmbeddings: true };
    const trunk = new Decoder(headless, this.namedParameters(), this.generationConfig);
    trunk.compute = this.compute;
    trunk.rests = this.rests;
    if (this.adapter === null) return trunk;
    trunk.freeze();
    moveAdapter(this, trunk);
    trunk.adapter = this.adapter;
    for (const parameter of trunk.trainedParameters().values()) parameter.requiresGrad = true;
    return trunk;
  }

  save(folder: string, options: SaveOptions = {}): Promise<void> {
    const { adapter } = this;
    if (adapter === null) return saveModel(this, this.generationConfig, folder, options);
    const parameters = this.trainedParameters();
    return saveAdapter(
      {
        ...{ base: this.config, parameters },
        adapter: { ...adapter, config: { ...adapter.config, task: 'CAUSAL_LM' } },
      },
      folder,
    );
  }

  /**
   * Takes weights that wait on the disk from memory; they come back when they are read. Nothing for a model that was loaded
   * without `restIn`.
   */
  rest(): void {
    if (this.rests) putToRest(this.embedTokens.weight);
  }

  override dispose(): void {
    super.dispose();
    this.disposeFrequencies();
  }

  private disposeFrequencies(): void {
    const { full, sliding } = this.inverseFrequencies;
    full.dispose();
    if (sliding !== full) sliding.dispose();
  }
}

function assertInput({ inputIds, attentionMask, sequenceIds }: CausalLmInput): void {
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

/**
 * Frequencies of rotary positions.
 *
 * @param lengths of the row, or [B, L] of the row or sequence that each token belongs to
 * @returns [R/2], or [B, L, 1, R/2] for one length per token; float32
 */
function frequenciesOf(settings: RopeSettings, lengths: Tensor | number, device: string): Tensor {
  const frequencies = (length: number): Float32Array =>
    Float32Array.from(ropeInverseFrequencies(settings, length));
  if (typeof lengths === 'number') return tensor(frequencies(lengths), { device });
  const perToken = [...lengths.to({ device: 'cpu' }).toTypedArray()].map((length) =>
    ropeLength(settings, Number(length)),
  );
  const known = new Map([...new Set(perToken)].map((length) => [length, frequencies(length)]));
  const half = known.values().next().value?.length ?? 0;
  const values = new Float32Array(perToken.length * half);
  perToken.forEach((length, token) => values.set(known.get(length) ?? [], token * half));
  return tensor(values, { shape: [...lengths.shape, 1, half], device });
}

function assertPositions(positions: Tensor, maxPositionEmbeddings: number): void {
  const longest = positions.flatten().max(0).values.item() + 1;
  if (longest > maxPositionEmbeddings)
    throw new ValueRangeError(
      `Decoder: expected rows of at most ${maxPositionEmbeddings} tokens, the model's learned positions, received ${longest}.`,
      { hint: 'Shorten the rows: there is no vector for the positions beyond.' },
    );
}

/** Logits within the family's bound, c·tanh(logit/c); as they are where it has none. */
export function capLogits(
  logits: Tensor,
  { logitSoftcap: cap }: Pick<DecoderConfig, 'logitSoftcap'>,
): Tensor {
  return cap === null ? logits : logits.div(cap).tanh().mul(cap);
}

/**
 * Whether the rotation of a token depends on how long its row is ("dynamic" and "longrope"), so that the model must be
 * told where rows end.
 */
export function frequenciesDependOnLength(config: DecoderConfig): boolean {
  return (['full', 'sliding'] as const).some(
    (kind) => ropeLength(ropeSettings(config, kind), 1) !== 0,
  );
}
