/**
 * Lines of samples.jsonl as they are read: docs/run-format.md has the schema. The file may come from anywhere, so every
 * field is looked at before it is believed. Knows no files.
 */
import { parseObject } from './metricTable.js';
import type {
  LossSettings,
  SampleKind,
  SampleSequence,
  SampleStreams,
  SampleTurn,
  Stream,
  TopTokens,
} from './protocol.js';

/** What stands in front of the tokens. */
export interface SampleHeader {
  readonly kind: SampleKind;
  readonly step: number;
  readonly promptIndex: number;
  readonly groupIndex: number;
  readonly length: number;
  readonly finishReason: string | null;
  readonly reward: number | null;
  readonly rewards: Readonly<Record<string, number | null>>;
  readonly advantage: number | null;
  readonly weightVersion: number | null;
  readonly prompt: string;
  readonly completion: string;
}

/** A whole line. */
export interface SampleLine extends SampleHeader {
  readonly turns: readonly SampleTurn[];
  readonly loss: LossSettings | null;
  readonly sequence: SampleSequence;
  /** Of a pair. */
  readonly rejected: SampleSequence | null;
}

/** Streams that samples.jsonl may hold. */
export const RECORDED_STREAMS = [
  'oldLogprobs',
  'rolloutLogprobs',
  'refLogprobs',
  'logprobs',
  'entropy',
  'advantages',
  'values',
  'returns',
  'tokenRewards',
  'tokenWeights',
  'mask',
] as const satisfies readonly (keyof SampleStreams)[];

/** In JSON a quote inside of a text is escaped, so this can only be the name of a field. */
const TOKENS_BEGIN = ',"tokenIds":';

/**
 * The fields in front of the tokens, without reading the tokens: they are nine tenths of a line.
 *
 * @returns undefined where the line is no sample
 */
export function parseHeader(line: Buffer): SampleHeader | undefined {
  const end = line.indexOf(TOKENS_BEGIN);
  const short = end === -1 ? undefined : parseObject(`${line.toString('utf8', 0, end)}}`);
  // Runs of before format 2 had the rewards behind the tokens.
  const record = short?.['length'] === undefined ? parseObject(line.toString('utf8')) : short;
  return record && headerOf(record);
}

/** A whole line; undefined where it is no sample. */
export function parseSample(line: Buffer): SampleLine | undefined {
  const record = parseObject(line.toString('utf8'));
  const header = record && headerOf(record);
  if (record === undefined || header === undefined) return undefined;
  const rejected = objectOf(record['rejected']);
  return {
    ...header,
    turns: listOf(record['turns']).flatMap((turn) => {
      const { role, text } = objectOf(turn) ?? {};
      return typeof role === 'string' && typeof text === 'string' ? [{ role, text }] : [];
    }),
    loss: lossOf(record['loss']),
    sequence: sequenceOf(record, header.completion),
    rejected: rejected ? sequenceOf(rejected, textOf(rejected['text'])) : null,
  };
}

function headerOf(record: Readonly<Record<string, unknown>>): SampleHeader | undefined {
  const { step, prompt, completion, promptIndex, groupIndex, length, finishReason } = record;
  if (!isCount(step) || typeof prompt !== 'string' || typeof completion !== 'string')
    return undefined;
  return {
    kind: record['kind'] === 'pair' || record['kind'] === 'given' ? record['kind'] : 'completion',
    step,
    promptIndex: isCount(promptIndex) ? promptIndex : 0,
    groupIndex: isCount(groupIndex) ? groupIndex : 0,
    length: isCount(length) ? length : listOf(record['tokenIds']).length,
    finishReason: typeof finishReason === 'string' ? finishReason.slice(0, 40) : null,
    reward: numberOf(record['reward']),
    rewards: Object.fromEntries(
      Object.entries(objectOf(record['rewards']) ?? {})
        .filter(([name]) => name !== '__proto__')
        .slice(0, 100)
        .map(([name, value]) => [name, numberOf(value)]),
    ),
    advantage: numberOf(record['advantage']),
    weightVersion: numberOf(record['weightVersion']),
    prompt,
    completion,
  };
}

function sequenceOf(record: Readonly<Record<string, unknown>>, text: string): SampleSequence {
  const tokenIds = listOf(record['tokenIds']).map((id) => numberOf(id) ?? -1);
  const tokens = listOf(record['tokens']).map(textOf);
  const length = tokenIds.length;
  const recorded = objectOf(record['streams']) ?? {};
  const streams = RECORDED_STREAMS.flatMap((name): [string, Stream][] => {
    const values = recorded[name];
    return Array.isArray(values) && values.length === length ? [[name, values.map(numberOf)]] : [];
  });
  return {
    text,
    tokenIds,
    tokens: tokenIds.map((id, at) => tokens[at] ?? `#${id}`),
    streams: Object.fromEntries(streams),
    topTokens: topTokensOf(record['topTokens'], length),
    steps: listOf(record['steps']).flatMap((step) => {
      const { from, to, score, label } = objectOf(step) ?? {};
      return isCount(from) && isCount(to) && typeof score === 'number' && from < to && to <= length
        ? [{ from, to, score, label: typeof label === 'boolean' ? label : null }]
        : [];
    }),
  };
}

function topTokensOf(value: unknown, length: number): TopTokens | null {
  const { tokens, logprobs } = objectOf(value) ?? {};
  const [texts, numbers] = [listOf(tokens), listOf(logprobs)];
  if (length === 0 || texts.length !== length || numbers.length !== length) return null;
  return {
    tokens: texts.map((each) => listOf(each).map(textOf)),
    logprobs: numbers.map((each) => listOf(each).map((number) => numberOf(number) ?? -Infinity)),
  };
}

const LOSS_NUMBERS = [
  'clipLow',
  'clipHigh',
  'dualClip',
  'klCoef',
  'discount',
  'gaeLambda',
  'vfCoef',
  'valueClip',
  'entropyCoef',
  'temperature',
  'beta',
  'importanceCap',
  'offPolicyThreshold',
  'slope',
  'rejectedSlope',
  'rest',
  'klBaseline',
  'labelWeight',
] as const;
const LOSS_WORDS = [
  'level',
  'ratioAgainst',
  'klPlacement',
  'klEstimator',
  'reduction',
  'importanceLevel',
  'importanceMode',
] as const;

function lossOf(value: unknown): LossSettings | null {
  const record = objectOf(value);
  const { method, objective } = record ?? {};
  if (!record || typeof method !== 'string' || typeof objective !== 'string') return null;
  const known = [
    ...LOSS_NUMBERS.filter((name) => typeof record[name] === 'number' || record[name] === null),
    ...LOSS_WORDS.filter((name) => typeof record[name] === 'string'),
  ];
  return { method, objective, ...Object.fromEntries(known.map((name) => [name, record[name]])) };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function numberOf(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? (value as unknown[]) : [];
}

function objectOf(value: unknown): Record<string, unknown> | undefined {
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  return isObject ? (value as Record<string, unknown>) : undefined;
}
