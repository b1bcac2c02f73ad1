/**
 * The numbers per token that an inspector can show: what each is called and means, and how strongly a value is coloured.
 * Plain TypeScript: it runs in the browser.
 */
import type { SampleSequence, Stream, StreamName } from '../protocol.js';
import { formatNumber } from './format.js';

/**
 * How values become colour. `signed`: two colours, one on each side of `middle`; `amount`: one colour from 0 on;
 * `surprise`: one colour for how far a log-probability lies below 0.
 */
export type ScaleKind = 'signed' | 'amount' | 'surprise';

/** A stream of the server, or one that the page adds. */
export type ShownStream = StreamName | 'stepScore';

/** What is known of a stream. */
export interface StreamInfo {
  readonly name: ShownStream;
  readonly label: string;
  readonly group: 'Log-probabilities' | 'Change of the policy' | 'Rewards and values' | 'Loss';
  readonly unit: 'nats' | null;
  readonly scale: ScaleKind;
  /** The value without colour: 0 unless said. */
  readonly middle?: number;
  readonly explanation: string;
}

const LOGPROBS = 'Log-probabilities';
const CHANGE = 'Change of the policy';
const REWARDS = 'Rewards and values';

/** Every stream, in the order of the page. */
export const STREAMS: readonly StreamInfo[] = [
  {
    name: 'logprobs',
    label: 'log π, policy',
    group: LOGPROBS,
    unit: 'nats',
    scale: 'surprise',
    explanation: 'Under the policy in the last pass of the step. The darker, the less expected.',
  },
  {
    name: 'oldLogprobs',
    label: 'log π, old',
    group: LOGPROBS,
    unit: 'nats',
    scale: 'surprise',
    explanation: 'Under the policy before the step’s first update.',
  },
  {
    name: 'rolloutLogprobs',
    label: 'log π, sampler',
    group: LOGPROBS,
    unit: 'nats',
    scale: 'surprise',
    explanation: 'As the sampler reported them; the same as the old ones up to rounding.',
  },
  {
    name: 'refLogprobs',
    label: 'log π, reference',
    group: LOGPROBS,
    unit: 'nats',
    scale: 'surprise',
    explanation: 'Under the frozen reference.',
  },
  {
    name: 'entropy',
    label: 'entropy',
    group: LOGPROBS,
    unit: 'nats',
    scale: 'amount',
    explanation: 'Of the distribution that the token was drawn from: how open the choice was.',
  },
  {
    name: 'ratio',
    label: 'ratio ρ',
    group: CHANGE,
    unit: null,
    scale: 'signed',
    middle: 1,
    explanation: 'π / π_old. Orange: the policy has moved away from the token; blue: towards it.',
  },
  {
    name: 'policyFactors',
    label: 'factor u',
    group: CHANGE,
    unit: null,
    scale: 'signed',
    middle: 1,
    explanation:
      'What the policy term is multiplied by: importance weight of a stale sample, 0 where it is left out.',
  },
  {
    name: 'klPolicyReference',
    label: 'log π / π_ref',
    group: CHANGE,
    unit: 'nats',
    scale: 'signed',
    explanation: 'k1: its mean over samples is the KL to the reference.',
  },
  {
    name: 'klEstimate',
    label: 'KL term',
    group: CHANGE,
    unit: 'nats',
    scale: 'amount',
    explanation: 'The estimate that the loss has, before its coefficient.',
  },
  {
    name: 'advantages',
    label: 'advantage Â',
    group: REWARDS,
    unit: null,
    scale: 'signed',
    explanation: 'As used in the loss. Blue: made more likely; orange: less.',
  },
  {
    name: 'tokenRewards',
    label: 'reward credited',
    group: REWARDS,
    unit: null,
    scale: 'signed',
    explanation: 'Score, process reward and KL penalty, at the tokens that they were given to.',
  },
  {
    name: 'values',
    label: 'value V',
    group: REWARDS,
    unit: null,
    scale: 'signed',
    explanation: 'What the value model expects from the state before the token.',
  },
  {
    name: 'returns',
    label: 'return R',
    group: REWARDS,
    unit: null,
    scale: 'signed',
    explanation: 'What the values are trained towards.',
  },
  {
    name: 'tdErrors',
    label: 'TD error δ',
    group: REWARDS,
    unit: null,
    scale: 'signed',
    explanation: 'r + γV′ − V: where the value model was surprised.',
  },
  {
    name: 'gae',
    label: 'GAE',
    group: REWARDS,
    unit: null,
    scale: 'signed',
    explanation: 'Generalised advantage estimate, before whitening.',
  },
  {
    name: 'implicitRewards',
    label: 'implicit reward',
    group: REWARDS,
    unit: null,
    scale: 'signed',
    explanation: 'β·log π / π_ref of the token; their sum is the reward of the completion.',
  },
  {
    name: 'stepScore',
    label: 'step score',
    group: REWARDS,
    unit: null,
    scale: 'signed',
    middle: 0.5,
    explanation: 'Probability that the step is right, by the process-reward model.',
  },
  {
    name: 'tokenWeights',
    label: 'weight w',
    group: 'Loss',
    unit: null,
    scale: 'amount',
    explanation: 'Of the token in the loss of its optimizer step.',
  },
  {
    name: 'mask',
    label: 'trained',
    group: 'Loss',
    unit: null,
    scale: 'amount',
    explanation: '1 where the token is trained; prompt, tool output and filtered rows are 0.',
  },
];

/** The numbers of a stream of a sequence; undefined where it has none. */
export function valuesOf(sequence: SampleSequence, name: ShownStream): Stream | undefined {
  if (name !== 'stepScore') return sequence.streams[name];
  if (sequence.steps.length === 0) return undefined;
  return sequence.tokens.map(
    (_, index) => sequence.steps.find(({ from, to }) => from <= index && index < to)?.score ?? null,
  );
}

/** The streams that any of some sequences has. */
export function availableStreams(sequences: readonly SampleSequence[]): StreamInfo[] {
  return STREAMS.filter(({ name }) =>
    sequences.some((sequence) => valuesOf(sequence, name)?.some((value) => value !== null)),
  );
}

/** What is shown where nothing was chosen: what tells most of a method. */
export function preferredStream(available: readonly StreamInfo[]): StreamInfo | undefined {
  const order: readonly ShownStream[] = [
    'stepScore',
    'implicitRewards',
    'klPolicyReference',
    'logprobs',
    'oldLogprobs',
  ];
  for (const wanted of order) {
    const found = available.find(({ name }) => name === wanted);
    if (found !== undefined) return found;
  }
  return available[0];
}

/** A value's colour: which, and how strong from 0 to 1. */
export interface Shade {
  readonly side: 'above' | 'below' | 'amount';
  readonly strength: number;
}

/** From numbers to colours. */
export interface ColourScale {
  readonly shade: (value: number | null | undefined) => Shade | undefined;
  /** What the ends of the scale stand for, from weak or low to strong or high. */
  readonly ends: readonly [string, string];
  readonly kind: ScaleKind;
}

/** Share of the values that do not reach the strongest colour: a single wild one must not leave the rest pale. */
const KEPT_SHARE = 0.98;

/** The scale of a stream for the values that are on the screen; both sides of a signed one reach equally far. */
export function colourScale(info: StreamInfo, streams: readonly Stream[]): ColourScale {
  const { scale: kind, middle = 0 } = info;
  const amount = (value: number): number => distance(value, info);
  const sizes = streams
    .flat()
    .filter((value) => value !== null)
    .map((value) => Math.abs(amount(value)))
    .sort((a, b) => a - b);
  const reach = sizes[Math.ceil(sizes.length * KEPT_SHARE) - 1] ?? 0;
  const full = reach > 0 ? reach : (sizes.at(-1) ?? 0);
  return {
    kind,
    ends: endsOf(info, full, middle),
    shade: (value) => {
      if (value === null || value === undefined) return undefined;
      const size = amount(value);
      const strength = full === 0 ? 0 : Math.min(1, Math.abs(size) / full);
      if (kind !== 'signed') return { side: 'amount', strength };
      return { side: size < 0 ? 'below' : 'above', strength };
    },
  };
}

/** How far a value lies from the one without colour; ratios count by their logarithm, so that ½ and 2 are alike. */
function distance(value: number, { scale, middle = 0, name }: StreamInfo): number {
  if (name === 'ratio') return Math.log(Math.max(value, 1e-12));
  return scale === 'surprise' ? -value : value - middle;
}

function endsOf(info: StreamInfo, full: number, middle: number): [string, string] {
  if (info.name === 'ratio')
    return [formatNumber(Math.exp(-full), 3), formatNumber(Math.exp(full), 3)];
  if (info.scale === 'signed')
    return [formatNumber(middle - full, 3), formatNumber(middle + full, 3)];
  return info.scale === 'surprise' ? ['0', formatNumber(-full, 3)] : ['0', formatNumber(full, 3)];
}

/** The sum up to and including each token; tokens without a number add nothing. */
export function runningSum(stream: Stream): number[] {
  let sum = 0;
  return stream.map((value) => (sum += value ?? 0));
}

/** At which bound a token was clipped: no gradient flows through it. */
export function clipSide(sequence: SampleSequence, index: number): 'low' | 'high' | undefined {
  const side = sequence.streams.clipped?.[index];
  if (side === null || side === undefined || side === 0) return undefined;
  return side < 0 ? 'low' : 'high';
}
