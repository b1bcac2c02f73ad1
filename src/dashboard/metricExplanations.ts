/**
 * What each metric means and what a healthy run does: the tables "Metrics" of docs/algorithms/*.md in short. A test
 * compares the names with those tables.
 */
import { METRIC_TEXTS, type MetricText } from './metricTexts.js';
import type { HealthyDirection, MetricGroupId } from './protocol.js';
import { REWARD_TEXTS } from './rewardTexts.js';

/** What is known of a metric. */
export interface MetricExplanation {
  readonly group: MetricGroupId;
  readonly label: string;
  readonly unit: string | null;
  /** Empty where the metric is not known. */
  readonly explanation: string;
  readonly healthy: string;
  readonly direction: HealthyDirection;
}

/** Titles of the groups, in the order of the page. */
export const GROUP_TITLES: Readonly<Record<MetricGroupId, string>> = {
  reward: 'Reward',
  evaluation: 'Held-out data',
  kl: 'KL and ratio',
  clipping: 'Clipping',
  lengths: 'Lengths and ends',
  loss: 'Losses and optimizer',
  value: 'Value model',
  throughput: 'Throughput',
  memory: 'Memory',
  other: 'Other',
};

const TEXTS = { ...REWARD_TEXTS, ...METRIC_TEXTS };
const HELD_OUT = /^(eval|evalBefore)\/(.+?)(Low|High)?$/;

/** What is known of a metric; of an unknown one its name alone. */
export function explainMetric(key: string): MetricExplanation {
  const known = textOf(key);
  if (known) return fromText(known);
  const reward = /^reward\/(.+)$/.exec(key)?.[1];
  if (reward !== undefined) {
    const explanation = `Mean of the reward ${reward} before its weight.`;
    return fromText(['reward', reward, null, 'up', explanation, 'Rises, unless it is a penalty.']);
  }
  const [, when, name = '', bound] = HELD_OUT.exec(key) ?? [];
  if (when !== undefined) return heldOut({ when, name, bound });
  return fromText(['other', key, null, 'none', '', '']);
}

/** The same on held-out data: it has the direction of its metric, and the group of its own. */
function heldOut(part: { when: string; name: string; bound: string | undefined }) {
  const { when, name, bound } = part;
  const base = explainMetric(name);
  const before = when === 'evalBefore' ? ' before the first iteration' : '';
  const place =
    bound === undefined ? '' : `${bound === 'Low' ? 'Lower' : 'Upper'} end of a 95 % interval. `;
  const isLoss = name === 'loss';
  return {
    ...base,
    group: 'evaluation' as const,
    label: `${base.label}, held out${bound === undefined ? '' : bound === 'Low' ? ', low' : ', high'}`,
    direction: isLoss ? ('down' as const) : base.direction,
    explanation: `${place}On held-out data${before}: ${base.explanation || name}`,
    healthy: isLoss
      ? 'Falls. Where it rises while the training loss falls, stop: that is overfitting.'
      : base.healthy,
  };
}

function textOf(key: string): MetricText | undefined {
  return Object.hasOwn(TEXTS, key) ? TEXTS[key] : undefined;
}

function fromText([
  group,
  label,
  unit,
  direction,
  explanation,
  healthy,
]: MetricText): MetricExplanation {
  return { group, label, unit, explanation, healthy, direction };
}
