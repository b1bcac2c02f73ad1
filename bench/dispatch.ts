/** Our side of `dispatch`: nanoseconds of a small operator called from TypeScript, its result object included. */
import { noGrad, rand, tidy, type Tensor } from '../src/torch/index.js';
import type { DispatchJob } from './jobs.js';

/** Results that live until their scope ends; a training step has hundreds. Python frees each at the next assignment. */
const CALLS_PER_SCOPE = 100;

type Loop = (call: () => void, calls: number) => void;

const loop: Loop = (call, calls) => {
  for (let done = 0; done < calls; done += CALLS_PER_SCOPE) {
    tidy(() => {
      for (let index = 0; index < CALLS_PER_SCOPE; index++) call();
    });
  }
};
const withoutGrad: Loop = (call, calls) => noGrad(() => loop(call, calls));

/** @returns nanoseconds per call, one value per round, by kind of call */
export function measureDispatch(job: DispatchJob): Record<string, number[]> {
  const a: Tensor = rand([2, 2]);
  const b: Tensor = rand([2, 2]);
  const leaf = rand([2, 2]);
  leaf.requiresGrad = true;
  const kinds: Record<string, () => void> = {
    add: () => withoutGrad(() => a.add(b), job.calls),
    'add, recorded by autograd': () => loop(() => leaf.add(b), job.calls),
    'multiply by a number': () => withoutGrad(() => a.mul(0.5), job.calls),
  };
  // The first round of each is compilation; it is not counted.
  for (const run of Object.values(kinds)) run();
  const rounds = Object.fromEntries(Object.keys(kinds).map((name) => [name, [] as number[]]));
  for (let round = 0; round < job.rounds; round++) {
    for (const [name, run] of Object.entries(kinds)) {
      const start = performance.now();
      run();
      rounds[name]?.push(((performance.now() - start) * 1e6) / job.calls);
    }
  }
  return rounds;
}
