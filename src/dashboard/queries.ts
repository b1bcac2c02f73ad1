/** What stands behind the question mark of an address, looked at before it is used. */
import * as z from 'zod';
import { ValueRangeError } from '../errors/index.js';
import type { SeriesQuery } from './metricTable.js';
import type { SampleQuery } from './protocol.js';

const number = z.coerce.number().optional();
const count = z.coerce.number().int().min(0);

const SAMPLE_QUERY = z.strictObject({
  offset: count.optional(),
  limit: count.max(500).optional(),
  upTo: count.optional(),
  sort: z
    .enum(['step', '-step', 'reward', '-reward', 'length', '-length', 'advantage', '-advantage'])
    .optional(),
  ...{ stepFrom: number, stepTo: number, rewardMin: number, rewardMax: number },
  ...{ lengthMin: number, lengthMax: number },
  finishReason: z.string().max(40).optional(),
  promptId: z.string().max(40).optional(),
  text: z.string().max(1000).optional(),
  rewardName: z.string().max(200).optional(),
});

const SERIES_QUERY = z.strictObject({
  keys: z.string().max(20_000).optional(),
  from: number,
  to: number,
  points: z.coerce.number().int().min(1).max(10_000).default(1000),
  since: z.string().max(200).optional(),
});

const LOG_QUERY = z.strictObject({ lines: z.coerce.number().int().min(1).max(5000).default(200) });
const COMPARE_QUERY = z.strictObject({ runs: z.string().max(2000) });
const KEYS_QUERY = z.strictObject({ keys: z.string().max(20_000).optional() });
const SIDE_QUERY = z.strictObject({ side: z.enum(['completion', 'rejected']).optional() });

/** The query of an address: `token`, which the guard has read, is no part of it. */
export type RawQuery = Readonly<Record<string, string>>;

function parse<Output>(schema: z.ZodType<Output>, { token: _token, ...query }: RawQuery): Output {
  const result = schema.safeParse(query);
  if (result.success) return result.data;
  throw new ValueRangeError(`The query of the address:\n${z.prettifyError(result.error)}`);
}

/** Without fields that are undefined. @throws ValueRangeError */
export function sampleQuery(query: RawQuery): SampleQuery {
  const found = Object.entries(parse(SAMPLE_QUERY, query));
  return Object.fromEntries(found.filter(([, value]) => value !== undefined));
}

/** @throws ValueRangeError */
export function seriesQuery(query: RawQuery): SeriesQuery {
  const { keys, ...rest } = parse(SERIES_QUERY, query);
  return { ...rest, keys: splitKeys(keys) };
}

/** @throws ValueRangeError */
export function logLines(query: RawQuery): number {
  return parse(LOG_QUERY, query).lines;
}

/** @throws ValueRangeError for none, or more than can be read side by side */
export function comparedRuns(query: RawQuery): string[] {
  const ids = parse(COMPARE_QUERY, query).runs.split(',');
  if (ids.length <= 50) return ids;
  throw new ValueRangeError(`compare: expected at most 50 runs, received ${ids.length}.`);
}

/** @throws ValueRangeError */
export function exportedKeys(query: RawQuery): string[] | undefined {
  return splitKeys(parse(KEYS_QUERY, query).keys);
}

/** @throws ValueRangeError */
export function sideOf(query: RawQuery): 'completion' | 'rejected' {
  return parse(SIDE_QUERY, query).side ?? 'completion';
}

/** Each name is encoded once more, so that it may hold a comma. */
function splitKeys(keys: string | undefined): string[] | undefined {
  try {
    return keys?.split(',').map(decodeURIComponent);
  } catch {
    throw new ValueRangeError('keys: expected names that are encoded for an address.');
  }
}

/** A whole number of an address. @throws ValueRangeError */
export function wholeNumber(text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new ValueRangeError(`The address: expected a whole number, received ${text.slice(0, 40)}.`);
}
