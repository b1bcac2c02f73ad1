/**
 * Known ways in which training fails, seen in the curves. Each rule is a function of the metrics alone, with its
 * threshold and the reason for it. The thresholds are ours where no source is named: a mark says where to look, not that
 * a run is lost.
 */
import type { MetricTable, RepeatedSteps } from './metricTable.js';
import type { Mark } from './protocol.js';

/** What the rules read. */
export interface Curves {
  readonly lines: number;
  readonly steps: ArrayLike<number>;
  /** As long as the steps, NaN where a line has none; undefined where no line has it. */
  readonly values: (key: string) => Float64Array | undefined;
  /** Settings of the method. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly repeated: Readonly<RepeatedSteps>;
}

/** A mark or none. */
export type FailureRule = (curves: Curves) => Mark | undefined;

/** Marks of the metrics, failures first. */
export function findPatterns(
  table: MetricTable,
  { config }: { readonly config: Readonly<Record<string, unknown>> },
): Mark[] {
  const curves: Curves = {
    lines: table.lines,
    steps: table.steps,
    values: (key) => table.column(key)?.values,
    config,
    repeated: table.repeated,
  };
  const marks = FAILURE_RULES.flatMap((rule) => rule(curves) ?? []);
  return marks.sort((a, b) => rank(a) - rank(b));
}

function rank({ severity }: Mark): number {
  return severity === 'failure' ? 0 : 1;
}

/** Single steps are noisy: a tenth of the run, 5 to 50 values, is what "now" and "in the beginning" mean. */
interface Ends {
  readonly first: number;
  readonly last: number;
  /** Mean of the window around the middle of the run. */
  readonly middle: number;
  readonly fromStep: number;
  readonly toStep: number;
  readonly count: number;
}

const FEWEST_VALUES = 10;

function endsOf({ values, steps }: Curves, key: string, fewest = FEWEST_VALUES): Ends | undefined {
  const column = values(key);
  const found = placesOf(column);
  if (column === undefined || found.length < fewest) return undefined;
  const size = Math.min(50, Math.max(5, Math.floor(found.length / 10)), found.length);
  const half = Math.floor((found.length - size) / 2);
  const mean = (places: readonly number[]): number => meanAt(column, places);
  return {
    first: mean(found.slice(0, size)),
    middle: mean(found.slice(half, half + size)),
    last: mean(found.slice(-size)),
    fromStep: steps[found.at(-size) ?? 0] ?? 0,
    toStep: steps[found.at(-1) ?? 0] ?? 0,
    count: found.length,
  };
}

function spanOf({ fromStep, toStep }: Ends): { fromStep: number; toStep: number } {
  return { fromStep, toStep };
}

const show = (value: number): string => String(Number(value.toPrecision(3)));

/** Above this many nats per token the text is hardly that of the reference any more: its tokens are e times rarer there. */
const KL_FAILURE = 1;
/** A completion of 100 tokens is then 20 nats away, where reward models were seen to be exploited (arXiv:2210.10760). */
const KL_WARNING = 0.2;

/** The policy leaves its reference ever faster. */
export const klRunsAway: FailureRule = (curves) => {
  const key = ['klPolicyReference', 'kl'].find((name) => curves.values(name));
  const ends = key === undefined ? undefined : endsOf(curves, key);
  if (key === undefined || ends === undefined) return undefined;
  // One that has levelled off is where the settings have put it.
  const isGrowing = ends.last > 1.5 * ends.middle;
  if (ends.last <= KL_WARNING || (!isGrowing && ends.last <= KL_FAILURE)) return undefined;
  return {
    rule: 'klRunsAway',
    severity: ends.last > KL_FAILURE ? 'failure' : 'warning',
    keys: [key],
    ...spanOf(ends),
    title: 'KL runs away',
    finding: `${key} is ${show(ends.last)} nats per token, ${show(ends.middle)} in the middle of the run; above ${KL_WARNING} and growing by half is marked, above ${KL_FAILURE} in any case.`,
    advice:
      'The policy writes what the reference hardly would, often because it exploits the reward. Read the latest samples. Raise klCoef (or set adaptiveKl), lower the learning rate, or stop earlier.',
  };
};

/** A tenth of the entropy of the beginning: nine tenths of the choice are gone. */
const ENTROPY_SHARE = 0.1;
/** Below this there was little to lose: 0.05 nats is one alternative in a hundred. */
const ENTROPY_FLOOR = 0.05;

/** The policy has stopped to explore. */
export const entropyCollapses: FailureRule = (curves) => {
  const ends = endsOf(curves, 'entropy');
  if (!ends || ends.first < ENTROPY_FLOOR || ends.last > ENTROPY_SHARE * ends.first)
    return undefined;
  return {
    rule: 'entropyCollapses',
    severity: 'warning',
    keys: ['entropy'],
    ...spanOf(ends),
    title: 'Entropy collapses',
    finding: `The entropy has fallen from ${show(ends.first)} to ${show(ends.last)} nats; below a tenth is marked.`,
    advice:
      'Completions of a prompt are nearly the same, so nothing new can be found. Where the task is solved this is its end. Otherwise: a higher clip.high (DAPO’s clip-higher), a lower learning rate, a KL term, or a higher temperature.',
  };
};

/** Half of the rollouts are then drawn for nothing. */
const NULL_GROUPS = 0.5;
const NULL_GROUPS_FAILURE = 0.95;

/** Most groups teach nothing. */
export const groupsWithoutVariance: FailureRule = (curves) => {
  const key = 'groupsWithoutVariance';
  const ends = endsOf(curves, key);
  if (!ends || ends.last <= NULL_GROUPS) return undefined;
  const isFailure = ends.last > NULL_GROUPS_FAILURE;
  return {
    rule: key,
    severity: isFailure ? 'failure' : 'warning',
    keys: [key],
    ...spanOf(ends),
    title: 'Groups without variance dominate',
    finding: `${show(100 * ends.last)} % of the groups have equal rewards; above ${100 * NULL_GROUPS} % is marked.`,
    advice:
      'They give no policy gradient. With a high reward the task is solved: stop, or take harder prompts. With a low one it is too hard: raise groupSize, fine-tune first, take easier prompts, or let dynamicSampling skip such groups.',
  };
};

/** 1e-6 in float32, some per cent in 16 bits (docs/algorithms/grpo.md, the ratio invariant). */
const RATIO_AT_START = 0.1;

/** Before the first update of a rollout the ratio must be 1. */
export const ratioNotOne: FailureRule = ({ values, steps, lines, config }) => {
  const isSingleUpdate =
    config['updatesPerRollout'] === 1 &&
    config['minibatchSize'] === null &&
    (config['rolloutLag'] ?? 0) === 0 &&
    config['ratioAgainst'] !== 'rollout';
  const keys = ['rolloutRatioDeviation', ...(isSingleUpdate ? ['maxRatioDeviation'] : [])];
  for (const key of keys) {
    const column = values(key);
    const at = column?.findIndex((value) => value > RATIO_AT_START) ?? -1;
    if (column === undefined || at === -1) continue;
    const many = column.filter((value) => value > RATIO_AT_START).length;
    return {
      rule: 'ratioNotOne',
      severity: many > lines / 2 ? 'failure' : 'warning',
      keys: [key],
      fromStep: steps[at] ?? 0,
      toStep: steps[lines - 1] ?? 0,
      title: 'Ratio is not 1 before the update',
      finding: `${key} is ${show(column[at] ?? NaN)} at step ${steps[at]}, and above ${RATIO_AT_START} in ${many} of ${lines} steps.`,
      advice:
        'Sampler and trainer do not give the same tokens the same probability, so every update is computed from wrong ratios. Look at temperature and truncation of the sampler, dropout, tokens changed after sampling, and numbers of 16 bits (float32Head).',
    };
  }
  return undefined;
};

/** docs/algorithms/grpo.md: below some 0.2. */
const CLIPPED = 0.2;
const CLIPPED_FAILURE = 0.5;

/** The updates of a rollout go further than the clipping allows. */
export const clipFractionHigh: FailureRule = (curves) => {
  const keys = ['clipFractionLow', 'clipFractionHigh'];
  const [low, high] = keys.map((key) => endsOf(curves, key));
  if (!low || !high) return undefined;
  const share = low.last + high.last;
  if (share <= CLIPPED) return undefined;
  return {
    rule: 'clipFractionHigh',
    severity: share > CLIPPED_FAILURE ? 'failure' : 'warning',
    keys,
    ...spanOf(high),
    title: 'Clip fraction is high',
    finding: `${show(100 * share)} % of the tokens are clipped; above ${100 * CLIPPED} % is marked.`,
    advice:
      'A clipped token has no gradient: much of each rollout is not used, and what is used pushes far. Lower the learning rate or updatesPerRollout; with CISPO look at the bounds, which are of the ratio itself.',
  };
};

/** A held-out number must have fallen by so much of its best value: less is noise of a few hundred prompts. */
const HELD_OUT_DROP = 0.1;

/** The reward is learnt by heart, or exploited. */
export const rewardUpHeldOutDown: FailureRule = (curves) => {
  const train = endsOf(curves, 'reward');
  if (!train) return undefined;
  for (const key of ['eval/reward', 'eval/accuracy']) {
    const best = bestAndLast(curves, key, 'highest');
    if (best === undefined || best.count < 3) continue;
    const drop = best.best - best.last;
    const trainAtBest = meanAround(curves, 'reward', best.bestStep);
    if (drop <= HELD_OUT_DROP * Math.abs(best.best) || !(train.last > trainAtBest)) continue;
    return {
      rule: 'rewardUpHeldOutDown',
      severity: 'failure',
      keys: ['reward', key],
      fromStep: best.bestStep,
      toStep: best.lastStep,
      title: 'Reward rises while the held-out one falls',
      finding: `${key} was ${show(best.best)} at step ${best.bestStep} and is ${show(best.last)}, while the training reward went from ${show(trainAtBest)} to ${show(train.last)}.`,
      advice:
        'The reward is exploited, or prompts are learnt by heart. Take the checkpoint of the best held-out value; then a stronger KL, more prompts, or a reward that is harder to exploit.',
    };
  }
  return undefined;
};

/** A held-out loss must have risen by so much of its least value. */
const LOSS_RISE = 0.05;

/** The data is learnt by heart. */
export const overfits: FailureRule = (curves) => {
  const train = endsOf(curves, 'loss');
  const found = bestAndLast(curves, 'eval/loss', 'lowest');
  if (!train || found === undefined || found.count < 3) return undefined;
  const trainAtBest = meanAround(curves, 'loss', found.bestStep);
  const rise = found.last - found.best;
  if (rise <= LOSS_RISE * Math.abs(found.best) || !(train.last < trainAtBest)) return undefined;
  return {
    rule: 'overfits',
    severity: 'warning',
    keys: ['loss', 'eval/loss'],
    fromStep: found.bestStep,
    toStep: found.lastStep,
    title: 'Held-out loss rises',
    finding: `eval/loss was ${show(found.best)} at step ${found.bestStep} and is ${show(found.last)}, while the training loss fell from ${show(trainAtBest)} to ${show(train.last)}.`,
    advice:
      'Take the checkpoint of the least held-out loss; then fewer epochs, a lower learning rate, or more data.',
  };
};

const LENGTH_FACTOR = 2;
/** A tenth cut off is what tells growth that the task needs from growth without end. */
const CUT_OFF = 0.1;

/** Completions grow until they are cut off. */
export const lengthsExplode: FailureRule = (curves) => {
  const length = endsOf(curves, 'completionLength');
  const cut = endsOf(curves, 'truncatedRate');
  if (!length || !cut) return undefined;
  const isLonger = length.last > LENGTH_FACTOR * length.first;
  if (!isLonger || cut.last <= CUT_OFF || cut.last <= cut.first) return undefined;
  return {
    rule: 'lengthsExplode',
    severity: cut.last > 0.5 ? 'failure' : 'warning',
    keys: ['completionLength', 'truncatedRate'],
    ...spanOf(length),
    title: 'Lengths explode',
    finding: `Completions have grown from ${show(length.first)} to ${show(length.last)} tokens, and ${show(100 * cut.last)} % are cut off; twice the length and more than ${100 * CUT_OFF} % is marked.`,
    advice:
      'Look whether long completions say more or repeat themselves. A reduction that does not favour length (constant, tokenMean), an overlong penalty, or a missing-end penalty helps; a reward model may like length.',
  };
};

/** From here on the values explain something: it is the noise of a batch of some hundred returns. */
const EXPLAINED = 0.05;
/** A value model that begins fresh needs some steps. */
const VALUE_STEPS = 20;

/** Advantages are then returns with noise on top. */
export const valueExplainsNothing: FailureRule = (curves) => {
  const key = 'explainedVariance';
  const ends = endsOf(curves, key, VALUE_STEPS);
  if (!ends || ends.last >= EXPLAINED) return undefined;
  return {
    rule: 'valueExplainsNothing',
    severity: ends.last < -0.5 ? 'failure' : 'warning',
    keys: [key, 'valueLoss'],
    ...spanOf(ends),
    title: 'Value model explains nothing',
    finding: `explainedVariance is ${show(ends.last)} after ${ends.count} steps; below ${EXPLAINED} is marked, below 0 the values add noise.`,
    advice:
      'Raise the learning rate or the weight of the value loss, start the value model from the reward model, look at valueClip and at the scale of the rewards. Where nearly all returns are equal there is little to explain.',
  };
};

/** A number was not finite in the latest lines. */
export const notFinite: FailureRule = ({ values, lines, steps }) => {
  const column = values('loss');
  const known = column?.findIndex((value) => Number.isFinite(value)) ?? -1;
  if (column === undefined || known === -1) return undefined;
  const at = column.findIndex((value, place) => place > known && Number.isNaN(value));
  // A loss stands in every line, or in none where nothing was updated: then only a last line without one is told.
  if (at === -1 || !Number.isNaN(column[lines - 1] ?? NaN)) return undefined;
  return {
    rule: 'notFinite',
    severity: 'failure',
    keys: ['loss'],
    fromStep: steps[at] ?? 0,
    toStep: steps[lines - 1] ?? 0,
    title: 'Loss is missing or not finite',
    finding: `The last line has no finite loss; the first one without is step ${steps[at]}.`,
    advice: 'Nothing was updated in this step, or a number overflowed: log.txt says which.',
  };
};

/** A run that is resumed cuts its files and repeats nothing: a step that comes again is another process's. */
export const stepsRepeat: FailureRule = ({ repeated: { lines, from, to } }) => {
  if (lines === 0) return undefined;
  return {
    rule: 'stepsRepeat',
    severity: 'warning',
    keys: [],
    ...{ fromStep: from, toStep: to },
    title: 'Steps come more than once',
    finding: `${lines} ${lines === 1 ? 'line' : 'lines'} of metrics.jsonl, of steps ${from} to ${to}, came after those steps had been written. Curves show what was written first; samples of both are listed.`,
    advice:
      'Two processes write to this folder, or its files were put together by hand. Stop both, and resume one: that cuts the files at its checkpoint.',
  };
};

/** All rules. */
export const FAILURE_RULES: readonly FailureRule[] = [
  klRunsAway,
  entropyCollapses,
  groupsWithoutVariance,
  ratioNotOne,
  clipFractionHigh,
  rewardUpHeldOutDown,
  overfits,
  lengthsExplode,
  valueExplainsNothing,
  notFinite,
  stepsRepeat,
];

function bestAndLast({ values, steps }: Curves, key: string, kind: 'highest' | 'lowest') {
  let [best, bestStep, last, lastStep, count] = [NaN, 0, NaN, 0, 0];
  const isBetter = (value: number): boolean =>
    Number.isNaN(best) || (kind === 'highest' ? value > best : value < best);
  values(key)?.forEach((value, at) => {
    if (!Number.isFinite(value)) return;
    count++;
    const step = steps[at] ?? 0;
    [last, lastStep] = [value, step];
    if (isBetter(value)) [best, bestStep] = [value, step];
  });
  return count === 0 ? undefined : { best, bestStep, last, lastStep, count };
}

/** Mean of the ten values around a step. */
function meanAround({ values, steps }: Curves, key: string, step: number): number {
  const column = values(key) ?? new Float64Array();
  const places = placesOf(column);
  const after = places.findIndex((at) => (steps[at] ?? 0) >= step);
  const middle = after === -1 ? places.length : after;
  return meanAt(column, places.slice(Math.max(0, middle - 5), middle + 5));
}

/** Places of the finite values. */
function placesOf(column: Float64Array | undefined): number[] {
  const places: number[] = [];
  column?.forEach((value, at) => {
    if (Number.isFinite(value)) places.push(at);
  });
  return places;
}

function meanAt(column: Float64Array, places: readonly number[]): number {
  return places.reduce((sum, at) => sum + (column[at] ?? NaN), 0) / places.length;
}
