/** The filters of samples as they stand in the page's address, and as the server is asked. */
import type { SampleQuery, SampleSort } from '../protocol.js';

const SORTS: readonly SampleSort[] = [
  'step',
  '-step',
  'reward',
  '-reward',
  'length',
  '-length',
  'advantage',
  '-advantage',
];

const NUMBERS = ['stepFrom', 'stepTo', 'rewardMin', 'rewardMax', 'lengthMin', 'lengthMax'] as const;
const TEXTS = ['finishReason', 'promptId', 'text', 'rewardName'] as const;

/** A filter that can be cleared on its own. */
export type SampleFilter = (typeof NUMBERS)[number] | (typeof TEXTS)[number];

/** Every filter, in the order of the page. */
export const SAMPLE_FILTERS: readonly SampleFilter[] = [...TEXTS, ...NUMBERS];

/** Reads the filters of an address. What is no number, or no known order, is left out: somebody typed it. */
export function sampleQueryOf(address: Readonly<Record<string, string | undefined>>): SampleQuery {
  const query: { -readonly [Name in keyof SampleQuery]: SampleQuery[Name] } = {};
  for (const name of TEXTS) {
    const text = address[name];
    if (text !== undefined && text !== '') query[name] = text;
  }
  for (const name of NUMBERS) {
    const text = address[name]?.trim() ?? '';
    if (text !== '' && Number.isFinite(Number(text))) query[name] = Number(text);
  }
  const sort = SORTS.find((name) => name === address['sort']) ?? '-step';
  return { ...query, sort };
}

/** How many filters narrow the list. */
export function filterCount(query: SampleQuery): number {
  return SAMPLE_FILTERS.filter((name) => name !== 'rewardName' && query[name] !== undefined).length;
}

/** Which page of `size` rows holds each of the rows from `first` to `last`. */
export function pagesOf(first: number, last: number, size: number): number[] {
  const from = Math.floor(Math.max(0, first) / size);
  const to = Math.floor(Math.max(0, last) / size);
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}
