/** The closest of several names: for suggestions after a typing error. */
import { editDistance } from '../errors/index.js';

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
