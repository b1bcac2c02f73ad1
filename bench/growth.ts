/** How time and memory grow with one size at a time: the cells, and the power law through what they found. */
import { SHAPES, type Cell, type ModelShape, type TrainJob } from './jobs.js';
import { endlessFolderOf, makeDataFile, modelFolderOf } from './modelFolder.js';
import type { Row } from './results.js';

/** What grows, and from where to where. */
const AXES = {
  'completion length': [64, 128, 256, 512, 1024, 2048],
  'group size': [2, 4, 8, 16, 32, 64],
  vocabulary: [8192, 16_384, 32_768, 65_536, 151_936],
  batch: [1, 2, 4, 8, 16, 32, 64],
  'tokens of a micro-batch': [256, 512, 1024, 2048, 4096, 8192],
} as const;

const PROMPT_TOKENS = 64;

/** Rows of an SFT step whose micro-batches grow: 8192 tokens. */
const SPLIT_ROWS = 32;

/** GRPO steps of the tiny shape by completion length, group size and vocabulary; SFT steps by batch and micro-batch. */
export function growthCells(rounds: number): Cell[] {
  const tiny = SHAPES['tiny'];
  if (tiny === undefined) return [];
  return Object.entries(AXES).flatMap(([axis, values]) =>
    values.map((value): Cell => {
      const job = jobOf(tiny, axis, value, rounds);
      const tokens = job.rows * job.groupSize * job.tokens;
      return {
        ...{ name: `${axis} ${value.toLocaleString('en-US')}`, quantity: 'tokens/s', job },
        ...{ axis: { name: axis, value }, expectedSeconds: 8 + (1 + rounds) * (tokens / 1500) },
      };
    }),
  );
}

function jobOf(tiny: ModelShape, axis: string, value: number, rounds: number): TrainJob {
  const isSplit = axis === 'tokens of a micro-batch';
  const isSft = axis === 'batch' || isSplit;
  const shape = axis === 'vocabulary' ? { ...tiny, vocabSize: value } : tiny;
  const name = shape.vocabSize === tiny.vocabSize ? 'tiny' : `tiny-${shape.vocabSize}`;
  const folder = modelFolderOf(name);
  const newTokens = axis === 'completion length' ? value : 64;
  const sizes = {
    rows: isSplit ? SPLIT_ROWS : isSft ? value : axis === 'completion length' ? 1 : 2,
    tokens: isSft ? 256 : PROMPT_TOKENS + newTokens,
    promptTokens: PROMPT_TOKENS,
  };
  const method = isSft ? 'sft' : 'grpo';
  return {
    ...({ kind: 'train', method, shape, dtype: 'float32', klCoef: 0, newTokens } as const),
    ...sizes,
    ...{ groupSize: isSft ? 1 : axis === 'group size' ? value : 8, warmUpSteps: 1, rounds },
    ...{ model: isSft ? folder : endlessFolderOf(folder) },
    ...(isSplit && { microBatchTokens: value }),
    data: makeDataFile({ method, ...sizes }, shape, 1 + rounds),
  };
}

/** Least squares on logarithms: y ≈ c·x^exponent. */
export function exponentOf(points: readonly (readonly [x: number, y: number])[]): number {
  const logs = points.map(([x, y]) => [Math.log(x), Math.log(y)] as const);
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanX, meanY] = [mean(logs.map(([x]) => x)), mean(logs.map(([, y]) => y))];
  const covariance = logs.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0);
  return covariance / logs.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
}

/**
 * One line for each axis: what a step took and its peak at every value, and the exponents. Those through the larger half
 * of the values stand beside, where what does not grow (the runtime, the weights, the optimizer) weighs less.
 */
export function growthLines(rows: readonly Row[]): string[][] {
  return Object.keys(AXES).flatMap((name) => {
    const found = rows
      .flatMap(({ axis, tokensPerStep, ours }) =>
        axis?.name === name && tokensPerStep !== undefined
          ? [{ x: axis.value, seconds: tokensPerStep / ours.median, mib: ours.peakRssMib }]
          : [],
      )
      .sort((a, b) => a.x - b.x);
    if (found.length < 2) return [];
    const larger = found.slice(Math.floor((found.length - 1) / 2));
    const exponents = (y: 'seconds' | 'mib'): string =>
      [found, larger]
        .map((points) => exponentOf(points.map((point) => [point.x, point[y]])).toFixed(2))
        .join(', ');
    const list = (show: (point: (typeof found)[number]) => string): string =>
      found.map(show).join(', ');
    return [
      [
        name,
        list(({ x }) => String(x)),
        list(({ seconds }) => seconds.toPrecision(3)),
        exponents('seconds'),
        list(({ mib }) => String(mib)),
        exponents('mib'),
      ],
    ];
  });
}

/** Titles of `growthLines`. */
export const GROWTH_HEADER = [
  'what grows',
  'values',
  's per step',
  'exponent: all, larger half',
  'peak MiB',
  'exponent: all, larger half',
];
