/** The closest of several names: for suggestions after a typing error. */

/** Names of the same settings in other programs, so that people who come from there find ours. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  beta: 'klCoef',
  betas: 'adamBeta1',
  epsilon: 'clip.low',
  epsilonhigh: 'clip.high',
  cliprange: 'clip.low',
  klcoefficient: 'klCoef',
  losstype: 'reduction',
  lr: 'learningRate',
  lrscheduler: 'schedule.kind',
  lrschedulertype: 'schedule.kind',
  maxcompletionlength: 'sampling.maxNewTokens',
  maxtokens: 'sampling.maxNewTokens',
  numgenerations: 'groupSize',
  numiterations: 'updatesPerRollout',
  numtrainepochs: 'epochs',
  perdevicetrainbatchsize: 'batchSize',
  ppoepochs: 'updatesPerRollout',
  savesteps: 'checkpointEvery',
  savetotallimit: 'keepCheckpoints',
  loggingsteps: 'logEvery',
  evalsteps: 'evalEvery',
  scalerewards: 'advantageScale',
  maxstep: 'maxSteps',
  maxseqlength: 'maxLength',
};

/**
 * The known name that an unknown one most likely means: equal but for case and separators, the same thing's name in
 * another program, a nested setting named without its parent, or a few letters away. Undefined if nothing is close.
 *
 * @param names dotted names that exist
 */
export function nearestName(unknown: string, names: readonly string[]): string | undefined {
  const wanted = plain(unknown);
  const same = names.find((name) => plain(name) === wanted);
  if (same !== undefined) return same;
  const foreign = ELSEWHERE[wanted] ?? ELSEWHERE[plain(lastPart(unknown))];
  if (foreign !== undefined && names.includes(foreign)) return foreign;
  const nested = names.find((name) => plain(lastPart(name)) === plain(lastPart(unknown)));
  if (nested !== undefined) return nested;
  // A third of the letters may be wrong: enough for slips, too little to suggest something unrelated.
  let best: { name: string; distance: number } | undefined;
  for (const name of names) {
    for (const spelling of [plain(name), plain(lastPart(name))]) {
      const distance = editDistance(wanted, spelling);
      if (distance > Math.max(wanted.length, spelling.length) / 3) continue;
      if (best === undefined || distance < best.distance) best = { name, distance };
    }
  }
  return best?.name;
}

function plain(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z0-9.]/g, '');
}

function lastPart(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1);
}

/**
 * Fewest insertions, deletions, replacements and swaps of neighbours that turn one text into the other, no part being
 * edited twice (optimal string alignment).
 */
export function editDistance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const replaced = (last[column - 1] ?? 0) + (from[row - 1] === to[column - 1] ? 0 : 1);
      const edited = Math.min(replaced, (last[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1);
      const swapped = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      current.push(
        row > 1 && column > 1 && swapped
          ? Math.min(edited, (beforeLast[column - 2] ?? 0) + 1)
          : edited,
      );
    }
    beforeLast = last;
    last = current;
  }
  return last[to.length] ?? 0;
}
