/** What the machine can do at best, by the engine that both sides compute with: `npm run bench` measures it beside a cell. */
import { noGrad, randn, tidy, zeros } from '../src/torch/index.js';
import type { CeilingJob } from './jobs.js';
import { matricesOf } from './work.js';

/** Rows of the products: as many tokens as a pass of training has. */
const ROWS = 1024;
/** Read as a whole: far larger than any cache. */
const READ_BYTES = 512 * 2 ** 20;
const SECONDS = 1.5;
const LEAST_ROUNDS = 3;

/**
 * @returns rates of the products with all matrices of the shape, each as often as the model has it, in GFLOP/s; and of
 *   reading memory with all threads, in GB/s
 */
export function measureCeiling(job: CeilingJob): Record<string, number[]> {
  return noGrad(() => ({ 'GFLOP/s': productRates(job), 'GB/s': readingRates() }));
}

function productRates({ shape, dtype }: CeilingJob): number[] {
  return tidy(() => {
    const products = matricesOf(shape).map(({ out, in: inputs, times }) => ({
      x: randn([ROWS, inputs]).to(dtype),
      weight: randn([out, inputs]).to(dtype),
      flops: 2 * ROWS * out * inputs,
      times,
    }));
    const whole = products.reduce((sum, { flops, times }) => sum + flops * times, 0);
    return repeated(() => {
      let seconds = 0;
      for (const { x, weight, times } of products) {
        const start = performance.now();
        tidy(() => {
          x.linear(weight);
        });
        seconds += (times * (performance.now() - start)) / 1000;
      }
      return whole / seconds / 1e9;
    });
  });
}

function readingRates(): number[] {
  return tidy(() => {
    const read = zeros([READ_BYTES / 4]);
    return repeated(() => {
      const start = performance.now();
      tidy(() => {
        read.sum();
      });
      return READ_BYTES / ((performance.now() - start) / 1000) / 1e9;
    });
  });
}

/** The first call is not counted. */
function repeated(rate: () => number): number[] {
  rate();
  const rates: number[] = [];
  const end = performance.now() + 1000 * SECONDS;
  while (rates.length < LEAST_ROUNDS || performance.now() < end) rates.push(rate());
  return rates;
}
