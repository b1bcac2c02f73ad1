/** What trainers read: examples in memory, or examples that are made when they are asked for. */
import type { Row } from '../data/index.js';
import { sourcesOf } from './dataEpochs.js';

/** Examples that are made when they are asked for, of rows that stay in their files. */
export interface ExampleSource<Example> {
  readonly length: number;
  /** The source of each example, for a mixture of several. */
  readonly sources: readonly number[];
  /** Examples by their places, in the order of those. */
  readonly read: (places: readonly number[]) => Promise<Example[]>;
}

/** Either kind. */
export type TrainingExamples<Example> = readonly Example[] | ExampleSource<Example>;

/** Examples as a trainer computes on them. */
export interface TrainingRows<Prepared> {
  /** The source of each, for a mixture of several. */
  readonly sources: readonly number[];
  readonly at: (places: readonly number[]) => Promise<Prepared[]>;
}

/**
 * Examples in memory are prepared at once, so that a wrong one is refused before training; others each time that they are
 * read.
 *
 * @param prepare one result per example, in their order; it may refuse examples
 */
export function trainingRows<Example extends { readonly row: Pick<Row, 'source'> }, Prepared>(
  examples: TrainingExamples<Example>,
  prepare: (examples: readonly Example[]) => readonly Prepared[],
): TrainingRows<Prepared> {
  if (isSource(examples)) {
    const { sources, read } = examples;
    return { sources, at: async (places) => [...prepare(await read(places))] };
  }
  const prepared = prepare(examples);
  return {
    sources: sourcesOf(examples),
    at: (places) => Promise.resolve(places.map((place) => prepared[place] as Prepared)),
  };
}

/** Whether examples stay in their files. */
export function isSource<Example>(
  examples: readonly unknown[] | ExampleSource<Example>,
): examples is ExampleSource<Example> {
  return 'read' in examples;
}
