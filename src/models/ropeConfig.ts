/** The rotary positions in a config.json: both spellings of transformers, and per kind of layer for Gemma 3. */
import type { RopeScaling } from '../nn/index.js';
import type { DecoderConfig, RopeBase } from './decoderConfig.js';
import type { ModelType } from './families.js';
import { isJsonObject, type Fields, type JsonObject } from './jsonFields.js';

type Rope = Pick<DecoderConfig, 'ropeTheta' | 'ropeScaling' | 'rotaryDim' | 'localRope'>;

/** @throws CheckpointError for a field of the wrong type and a kind of scaling that posttrain does not have */
export function parseRope(
  modelType: ModelType,
  fields: Fields,
  sizes: Pick<DecoderConfig, 'headDim' | 'maxPositionEmbeddings'>,
): Rope {
  if (modelType === 'gpt2')
    return { ropeTheta: 10_000, ropeScaling: null, rotaryDim: sizes.headDim, localRope: null };
  // transformers 5 writes one object with everything, transformers 4 `rope_theta` and `rope_scaling` beside each other.
  const parameters = fields.nested('rope_parameters');
  const perKind = Object.values(fields.value('rope_parameters') ?? {}).some(isJsonObject);
  if (modelType === 'gemma3_text') {
    const [full, sliding] = perKind
      ? [parameters?.nested('full_attention'), parameters?.nested('sliding_attention')]
      : [parameters ?? fields.nested('rope_scaling'), null];
    const base = (own: Fields | null | undefined, key: string, otherwise: number): RopeBase => ({
      ropeTheta:
        own?.value('rope_theta') === undefined
          ? fields.positive(key, otherwise)
          : own.positive('rope_theta'),
      ropeScaling: own ? parseScaling(modelType, own, fields, sizes) : null,
    });
    return {
      ...base(full, 'rope_theta', 1_000_000),
      rotaryDim: sizes.headDim,
      localRope: base(sliding, 'rope_local_base_freq', 10_000),
    };
  }
  if (perKind) throw fields.wrong('rope_parameters', 'one set of values for all layers');
  const scaling = parameters ?? fields.nested('rope_scaling');
  const has = (name: string): Fields => (scaling?.value(name) === undefined ? fields : scaling);
  const ropeTheta = has('rope_theta').positive('rope_theta', 10_000);
  return {
    ropeTheta,
    rotaryDim: rotaryDim(modelType, has('partial_rotary_factor'), sizes.headDim),
    ropeScaling: scaling && parseScaling(modelType, scaling, fields, sizes),
    localRope: null,
  };
}

/** Families whose layers turn only a part of each head; in others transformers ignores the field or fails. */
const PARTIAL: readonly ModelType[] = ['phi3'];

function rotaryDim(modelType: ModelType, fields: Fields, headDim: number): number {
  const name = 'partial_rotary_factor';
  const factor = fields.positive(name, 1);
  if (factor === 1) return headDim;
  if (!PARTIAL.includes(modelType)) throw fields.wrong(name, '1');
  const dim = Math.trunc(headDim * factor);
  if (factor > 1 || dim === 0 || dim % 2 !== 0)
    throw fields.wrong(name, `a part of the head size ${headDim} that is an even number`);
  return dim;
}

const KINDS = '"default", "linear", "dynamic", "yarn", "llama3", "longrope"';

function parseScaling(
  modelType: ModelType,
  fields: Fields,
  outer: Fields,
  { maxPositionEmbeddings }: Pick<DecoderConfig, 'maxPositionEmbeddings'>,
): RopeScaling | null {
  const key = fields.value('rope_type') === undefined ? 'type' : 'rope_type';
  const original = (): number => originalPositions(modelType, fields, outer, maxPositionEmbeddings);
  let kind = fields.value(key) ?? 'default';
  // The first Phi-3 configurations called longrope so.
  if (modelType === 'phi3' && (kind === 'su' || kind === 'yarn')) kind = 'longrope';
  switch (kind) {
    case 'default':
      return null;
    case 'linear':
      return { type: 'linear', factor: fields.positive('factor') };
    case 'dynamic':
      return {
        type: 'dynamic',
        factor: fields.positive('factor'),
        // transformers does not look at original_max_position_embeddings here.
        originalMaxPositionEmbeddings: maxPositionEmbeddings,
      };
    case 'yarn':
      return yarn(fields, original(), maxPositionEmbeddings);
    case 'longrope':
      return longrope(fields, original(), maxPositionEmbeddings);
    case 'llama3':
      return {
        type: 'llama3',
        factor: fields.positive('factor'),
        lowFreqFactor: fields.positive('low_freq_factor'),
        highFreqFactor: fields.positive('high_freq_factor'),
        originalMaxPositionEmbeddings: original(),
      };
    default:
      throw fields.wrong(key, `one of ${KINDS}`);
  }
}

function originalPositions(
  modelType: ModelType,
  fields: Fields,
  outer: Fields,
  maxPositionEmbeddings: number,
): number {
  const name = 'original_max_position_embeddings';
  // Phi-3 has the field beside the others, and transformers takes that one before any other.
  if (modelType === 'phi3') return outer.size(name, 4096);
  const own = fields.value(name) === undefined ? outer : fields;
  return own.size(name, maxPositionEmbeddings);
}

function yarn(fields: Fields, original: number, maximum: number): RopeScaling {
  const factor = fields.positive('factor', maximum / original);
  const magnitude = (times: number): number =>
    factor <= 1 ? 1 : 0.1 * times * Math.log(factor) + 1;
  const mscale = fields.numberOrNull('mscale');
  const mscaleAllDim = fields.numberOrNull('mscale_all_dim');
  const inferred =
    mscale && mscaleAllDim ? magnitude(mscale) / magnitude(mscaleAllDim) : magnitude(1);
  return {
    type: 'yarn',
    factor,
    attentionFactor: fields.positive('attention_factor', inferred),
    betaFast: fields.positive('beta_fast', 32),
    betaSlow: fields.positive('beta_slow', 1),
    truncate: fields.flag('truncate', true),
    originalMaxPositionEmbeddings: original,
  };
}

function longrope(fields: Fields, original: number, maximum: number): RopeScaling {
  const factor = fields.positive('factor', maximum / original);
  const inferred = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
  return {
    type: 'longrope',
    shortFactor: fields.positives('short_factor'),
    longFactor: fields.positives('long_factor'),
    attentionFactor: fields.positive('attention_factor', inferred),
    originalMaxPositionEmbeddings: original,
  };
}

/** The scaling as config.json has it. */
export function rawScaling(scaling: RopeScaling | null): JsonObject | null {
  if (scaling === null) return null;
  const original = { original_max_position_embeddings: originalOf(scaling) };
  switch (scaling.type) {
    case 'linear':
    case 'dynamic':
      return { rope_type: scaling.type, factor: scaling.factor };
    case 'llama3':
      return {
        rope_type: 'llama3',
        factor: scaling.factor,
        low_freq_factor: scaling.lowFreqFactor,
        high_freq_factor: scaling.highFreqFactor,
        ...original,
      };
    case 'yarn':
      return {
        rope_type: 'yarn',
        factor: scaling.factor,
        attention_factor: scaling.attentionFactor,
        beta_fast: scaling.betaFast,
        beta_slow: scaling.betaSlow,
        truncate: scaling.truncate,
        ...original,
      };
    case 'longrope':
      return {
        rope_type: 'longrope',
        short_factor: scaling.shortFactor,
        long_factor: scaling.longFactor,
        attention_factor: scaling.attentionFactor,
        ...original,
      };
  }
}

/** The context that a scaling starts from; undefined where it does not matter. */
export function originalOf(scaling: RopeScaling | null): number | undefined {
  return scaling && 'originalMaxPositionEmbeddings' in scaling
    ? scaling.originalMaxPositionEmbeddings
    : undefined;
}
