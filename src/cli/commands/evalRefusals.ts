/** Options of `eval` that what is measured would pass over in silence. Knows which were given, not their values. */
import type { Command } from 'commander';
import { UsageError } from '../../errors/index.js';

/** Options about completions and their answers, by their names in `EvalOptions`. */
const OF_COMPLETIONS = [
  ...['samples', 'k', 'temperature', 'topP', 'maxNewTokens', 'rewardWeight', 'threshold', 'answer'],
  ...['environment', 'maxTurns', 'completions', 'against', 'judge'],
];
const OF_SAMPLES = ['k', 'temperature', 'topP', 'answer'];

/** Names of the options that stand on the command line; defaults do not count. */
export function givenOptions(command: Command): ReadonlySet<string> {
  const names = Object.keys(command.opts());
  return new Set(names.filter((name) => command.getOptionValueSource(name) === 'cli'));
}

/** Refuses what is about completions, for a model that reads them and writes none. @throws UsageError */
export function refuseSampling(given: ReadonlySet<string>, what: string, spec: string): void {
  const hint = `To score completions by it: --model <policy> --reward ${spec}.`;
  if (given.has('reward')) {
    throw new UsageError(`eval: expected no --reward with ${what}, received one.`, { hint });
  }
  const idle = OF_COMPLETIONS.filter((name) => given.has(name));
  if (idle.length === 0) return;
  throw new UsageError(
    `eval: expected no ${flagsOf(idle)} with ${what}, which samples nothing, received ${idle.length === 1 ? 'it' : 'them'}.`,
    { hint },
  );
}

/**
 * Refuses options about completions where perplexity is measured, those of samples where there are none, and turns without
 * an environment.
 *
 * @throws UsageError
 */
export function refuseIdle(
  given: ReadonlySet<string>,
  { reward, against, samples }: { reward: boolean; against: boolean; samples: number },
): void {
  const idle = (names: readonly string[], needed: string, reason: string): void => {
    const found = names.filter((name) => given.has(name));
    if (found.length === 0) return;
    throw new UsageError(
      `eval: expected ${needed} with ${flagsOf(found)}, received none: ${reason}.`,
    );
  };
  if (!reward && !against) {
    idle(
      [...OF_COMPLETIONS, 'seed'],
      '--reward or --against',
      'perplexity is measured without sampling anything',
    );
  }
  if (samples === 0) idle(OF_SAMPLES, '--samples', 'the greedy completion has no use for it');
  if (!given.has('environment'))
    idle(['maxTurns'], '--environment', 'without one a completion is one turn');
}

function flagsOf(names: readonly string[]): string {
  return names
    .map((name) => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`)
    .join(', ');
}
