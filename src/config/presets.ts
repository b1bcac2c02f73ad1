/** The methods of the GRPO family as data: settings, each with the sentence or equation that it comes from. */
import { ConfigError } from '../errors/index.js';
import { configFromObject, type ConfigSource } from './configSource.js';
import type { GrpoConfigInput } from './grpo.js';
import { nearestName } from './nearestName.js';
import { PRESETS_BEYOND_GROUPS } from './presetsBeyondGroups.js';

/** A method as settings of another one. */
export interface Preset<Settings> {
  /** As after `--preset`. */
  readonly name: string;
  readonly summary: string;
  readonly paper: string;
  readonly settings: Settings;
  /** Where each number comes from, by dotted name of the setting. */
  readonly sources: Readonly<Record<string, string>>;
  /** What differs from the paper, and why. */
  readonly departures: readonly string[];
}

/** A method as settings of `GrpoConfig`. Sizes are scaled to one small machine; `departures` say from what. */
export type GrpoPreset = Preset<GrpoConfigInput>;

const R1 = 'DeepSeek-AI 2025 (DeepSeek-R1), arXiv:2501.12948v2';
const DAPO = 'Yu et al. 2025 (DAPO), arXiv:2503.14476';
const MINIMAX = 'MiniMax 2025 (MiniMax-M1), arXiv:2506.13585';
const V32 = 'DeepSeek-AI 2025 (DeepSeek-V3.2), arXiv:2512.02556';

const FEWER_UPDATES =
  'Four updates per rollout instead of sixteen: with 256 completions sixteen would leave one group to each.';

const GROUP_PRESETS: readonly GrpoPreset[] = [
  {
    name: 'grpo',
    summary: 'GRPO as published in DeepSeekMath',
    paper: 'Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300',
    settings: {
      groupSize: 8,
      updatesPerRollout: 1,
      baseline: 'groupMean',
      advantageScale: 'group',
      reduction: { kind: 'sequenceMean' },
      klCoef: 0.04,
      klPlacement: 'loss',
      klEstimator: 'k3',
      learningRate: 1e-6,
    },
    sources: {
      groupSize: '§4.2: "For each question, we sample 64 outputs." 8 here.',
      updatesPerRollout:
        '§4.2: "The policy model only has a single update following each exploration stage."',
      baseline:
        '§4.1.2: "these rewards are normalized by subtracting the group average and dividing by the group standard deviation".',
      advantageScale: '§4.1.2, the same sentence.',
      reduction: 'Eq. 3: 1/G Σᵢ 1/|oᵢ| Σₜ.',
      klCoef: '§4.2: "The KL coefficient is 0.04."',
      klPlacement: 'Eq. 3: the KL is a term of the objective.',
      klEstimator: 'Eq. 4: π_ref/π − log(π_ref/π) − 1.',
      learningRate: '§4.2: "For GRPO, we set the learning rate of the policy model as 1e-6."',
    },
    departures: [
      'The paper names no clip range, temperature or ε of the std: those of PPO, 1 and 1e-4 are taken.',
    ],
  },
  {
    name: 'r1',
    summary:
      'GRPO as in the first RL stage of DeepSeek-R1: a wide clip, a weak KL to a moving reference',
    paper: R1,
    settings: {
      groupSize: 16,
      minibatchSize: 64,
      clip: { low: 10, high: 10 },
      klCoef: 0.001,
      klEstimator: 'k3',
      referenceEvery: 25,
      sampling: { temperature: 1 },
      learningRate: 3e-6,
    },
    sources: {
      groupSize:
        '§3.2.1: "For each question, we sample 16 outputs with a maximum length of 32,768."',
      minibatchSize:
        '§3.2.1: "each rollout generates 8,192 outputs, which are randomly split into 16 minibatches and trained for only a single inner epoch".',
      'clip.low': '§3.2.1: "the GRPO clip ratio ϵ to 10": no lower bound.',
      'clip.high': '§3.2.1: "the GRPO clip ratio ϵ to 10".',
      klCoef: '§3.2.1: "the KL coefficient to 0.001".',
      klEstimator: 'Eq. 2.',
      referenceEvery:
        '§2.1: "Every 400 steps, we replace the reference model with the latest policy model." 400 optimizer steps are 25 of its rollouts.',
      'sampling.temperature': '§3.2.1: "the sampling temperature to 1".',
      learningRate: '§2.1: "we set the learning rate to 3e-6".',
    },
    departures: [
      FEWER_UPDATES,
      'The paper has 512 prompts in a rollout.',
      'The reference is replaced after as many rollouts; with four updates each these are 100 optimizer steps.',
    ],
  },
  {
    name: 'dr-grpo',
    summary: 'Dr. GRPO: no std of the group, no division by the length',
    paper: 'Liu et al. 2025 (Dr. GRPO), arXiv:2503.20783',
    settings: {
      groupSize: 8,
      updatesPerRollout: 1,
      clip: { low: 0.2, high: 0.2 },
      advantageScale: 'none',
      reduction: { kind: 'constant', budget: null },
      klCoef: 0,
      sampling: { maxNewTokens: 256, temperature: 1 },
      learningRate: 1e-6,
      adamBeta2: 0.95,
    },
    sources: {
      groupSize: 'Appendix G, Table 6: 8 responses per question.',
      updatesPerRollout: 'Table 6: one inner proximal update epoch.',
      'clip.low': 'Table 6: clipping parameter 0.2.',
      'clip.high': 'Table 6: clipping parameter 0.2.',
      advantageScale:
        '§3.2: "we propose to simply remove the 1/|o_i| and std({R(q,o_1),…,R(q,o_G)}) normalization terms".',
      reduction:
        '§3.2: "we could replace the mask.sum(axis=dim) with a constant value (e.g., generation budget)". It follows sampling.maxNewTokens.',
      klCoef: '§3: "We will assume β = 0 throughout this paper."',
      'sampling.maxNewTokens':
        'Table 6 has 3000; the default of this program, so that it is the budget.',
      'sampling.temperature': 'Table 6: 1.0.',
      learningRate: 'Table 6: 1e-6, constant.',
      adamBeta2: 'Table 6: Adam (0.9, 0.95).',
    },
    departures: [],
  },
  {
    name: 'dapo',
    summary: 'DAPO: clip-higher, token mean, soft overlong penalty, dynamic sampling, no KL',
    paper: DAPO,
    settings: {
      groupSize: 16,
      minibatchSize: 64,
      clip: { low: 0.2, high: 0.28 },
      advantageScale: 'group',
      reduction: { kind: 'tokenMean' },
      klCoef: 0,
      overlongPenalty: { cacheTokens: null, weight: 1 },
      overlongFiltering: false,
      dynamicSampling: { filterOn: 'accuracy', accuracyReward: null, maxRounds: 10 },
      learningRate: 1e-6,
      warmupSteps: 80,
      weightDecay: 0.1,
    },
    sources: {
      groupSize: '§4.1: "the prompt batch size is 512 and we sample 16 responses for each prompt".',
      minibatchSize:
        '§4.1: "the mini-batch size is set to 512, i.e., 16 gradient updates for each rollout step".',
      'clip.low': '§4.1: "we set the clipping parameter ε_low to 0.2 and ε_high to 0.28".',
      'clip.high': '§4.1, the same sentence.',
      advantageScale: '§4.1: "estimate advantages using group reward normalization".',
      reduction: 'loss_agg_mode token-mean in its code (verl, docs/algo/dapo.md).',
      klCoef: '§2.3: "Therefore, we will exclude the KL term from our proposed algorithm."',
      'overlongPenalty.cacheTokens':
        '§4.1: "we set the expected maximum length as 16,384 tokens and allocate additional 4,096 tokens as the soft punish cache": a fifth of all.',
      'overlongPenalty.weight':
        '§3.4: "This penalty is added to the original rule-based correctness reward".',
      overlongFiltering:
        'verl, docs/algo/dapo.md: "Most experiments in the paper, including the best-performant one, are run without Overlong Filtering".',
      'dynamicSampling.filterOn':
        '§3.2: "we keep sampling until the batch is fully filled with samples whose accuracy is neither 0 nor 1".',
      'dynamicSampling.accuracyReward': 'The same; the sum of the rewards, before the penalty.',
      'dynamicSampling.maxRounds': 'max_num_gen_batches=10 in its code (verl, recipe/dapo).',
      learningRate:
        '§4.1: "a constant learning rate of 1×10⁻⁶, incorporating a linear warm-up over 20 rollout steps".',
      warmupSteps: '§4.1, the same sentence: 20 rollouts of four updates.',
      weightDecay: 'weight_decay=0.1 in its code (verl, recipe/dapo).',
    },
    departures: [
      FEWER_UPDATES,
      'Eq. 12 read literally averages over the tokens of one prompt; the token mean over the optimizer step is that of the code.',
      'The reward of the paper is 1 or −1. With 0 and 1 the overlong penalty weighs twice as much: overlongPenalty.weight 0.5 restores its proportion.',
      'Where the rounds are spent the batch is filled with groups without variance; the code stops with an error.',
    ],
  },
  {
    name: 'gspo',
    summary: 'GSPO: the ratio of whole completions is clipped',
    paper: 'Zheng et al. 2025 (GSPO), arXiv:2507.18071',
    settings: {
      objective: { kind: 'gspo', level: 'sequence' },
      clip: { low: 3e-4, high: 4e-4 },
      minibatchSize: 32,
      advantageScale: 'group',
      reduction: { kind: 'sequenceMean' },
      klCoef: 0,
    },
    sources: {
      objective: 'Eq. 5 and 7; objective.level token is Eq. 13–14.',
      'clip.low':
        '§5.1: "In GSPO, we set the left and right clipping ranges in Equation (5) to 3e-4 and 4e-4, respectively."',
      'clip.high': '§5.1, the same sentence.',
      minibatchSize:
        '§5.1: "each batch of rollout data is partitioned into four minibatches for gradient updates".',
      advantageScale: 'Eq. 6.',
      reduction: 'Eq. 5: 1/G Σᵢ.',
      klCoef: '§2: "we omit the KL regularization term hereinafter for brevity".',
    },
    departures: [
      'Group size, learning rate and batch are not in the paper: the defaults are taken.',
      'ScaleRL (arXiv:2510.13786, A.17) found this range too narrow in its setting. On completions of a few tokens it is, too: the fewer tokens, the further their mean moves.',
    ],
  },
  {
    name: 'cispo',
    summary: 'CISPO: importance weights are clipped, no token loses its gradient',
    paper: MINIMAX,
    settings: {
      objective: { kind: 'cispo', low: 0, high: 5 },
      groupSize: 16,
      minibatchSize: 64,
      advantageScale: 'group',
      reduction: { kind: 'tokenMean' },
      klCoef: 0,
      overlongPenalty: { cacheTokens: null, weight: 1 },
      dynamicSampling: { filterOn: 'accuracy', accuracyReward: null, maxRounds: 10 },
      adamBeta2: 0.95,
      adamEpsilon: 1e-15,
    },
    sources: {
      objective:
        '§3.1: "we did not impose a lower bound on the IS weight"; the upper one is not told. 5 lies in the range that ScaleRL (arXiv:2510.13786, A.17) found to be all the same, 4 to 8.',
      groupSize: 'DAPO, §4.1, whose techniques it takes.',
      minibatchSize:
        '§3.1: "in our setup, which involved 16 rounds of off-policy updates per generation batch".',
      advantageScale: '§3.1: that of GRPO.',
      reduction: 'Eq. 4: 1/Σ|oᵢ|.',
      klCoef: '§3.1: "There is no KL penalty term in CISPO similar to other recent works".',
      'overlongPenalty.cacheTokens':
        '§3.1: "we utilize the dynamic sampling and length penalty techniques from Yu et al. (2025)".',
      'overlongPenalty.weight': '§3.1, the same sentence.',
      'dynamicSampling.filterOn': '§3.1, the same sentence.',
      'dynamicSampling.accuracyReward': '§3.1, the same sentence.',
      'dynamicSampling.maxRounds': 'As in the dapo preset.',
      adamBeta2: '§3.2: "we set β1 = 0.9, β2 = 0.95, and eps=1e-15".',
      adamEpsilon: '§3.2, the same sentence.',
    },
    departures: [
      FEWER_UPDATES,
      'Eq. 4 stands inside of the expectation over prompts, as Eq. 12 of DAPO does; the token mean over the optimizer step is taken for both.',
      'high bounds the ratio itself. The paper writes 1 + ε, and a bound below 1, TRL’s default, would make all weights equal.',
    ],
  },
  {
    name: 'scaling-grpo',
    summary: 'GRPO of DeepSeek-V3.2: no std, unbiased KL, off-policy mask, kept sampling mask',
    paper: V32,
    settings: {
      minibatchSize: 32,
      advantageScale: 'none',
      reduction: { kind: 'sequenceMean' },
      klCoef: 0.001,
      klPlacement: 'loss',
      klEstimator: 'k3Unbiased',
      ratioAgainst: 'rollout',
      offPolicyMask: { threshold: 0.5 },
      sampling: { topP: 0.95, keepSamplingMask: true },
    },
    sources: {
      minibatchSize: 'Ours: the paper names none, and without later updates nothing is off-policy.',
      advantageScale:
        '§3.1: "The advantage of o_{i,t} is calculated by subtracting the average reward of the group from the reward of output o_i".',
      reduction: '§3.1: 1/G Σᵢ 1/|oᵢ| Σₜ.',
      klCoef:
        'Not published: "applying a relatively weak KL penalty or even omitting it entirely can yield improved performance". 0.001 is DeepSeek-R1’s.',
      klPlacement: 'Eq. 8.',
      klEstimator:
        '§3.1, Eq. 7: "using the importance-sampling ratio between the current policy π_θ and the old policy π_old".',
      ratioAgainst:
        '§3.1: "π_old here denotes the sampling probability directly returned by the inference framework".',
      'offPolicyMask.threshold':
        'Not published: "δ is a hyper-parameter that controls the threshold of policy divergence". 0.5 is TRL’s example.',
      'sampling.topP': 'Not published; ours.',
      'sampling.keepSamplingMask':
        '§3.1: "we preserve the truncation masks during sampling from π_old and apply them to π_θ during training, ensuring both policies share identical action subspaces".',
    },
    departures: [
      'Keep Routing concerns mixtures of experts, which there are none of here yet.',
      'The reference is renormalised on the same support as the policy: else a policy equal to its reference would have a KL of −log of the kept mass.',
    ],
  },
];

/** Every preset by its name. */
export const GRPO_PRESETS: Readonly<Record<string, GrpoPreset>> = Object.fromEntries(
  [...GROUP_PRESETS, ...PRESETS_BEYOND_GROUPS].map((preset) => [preset.name, preset]),
);

/**
 * The preset of a name.
 *
 * @throws ConfigError that lists the names there are, with the nearest one
 */
export function grpoPreset(name: string): GrpoPreset {
  const preset = Object.values(GRPO_PRESETS).find((known) => known.name === name);
  if (preset) return preset;
  const names = Object.keys(GRPO_PRESETS);
  const nearest = nearestName(name, names);
  throw new ConfigError(
    `--preset: expected one of ${names.join(', ')}, received ${JSON.stringify(name)}.${nearest === undefined ? '' : ` Did you mean ${nearest}?`}`,
    { hint: 'Run `posttrain config grpo --preset dapo` to see what one sets.' },
  );
}

/** Settings over a preset: what is given replaces what the preset says, one by one (with a `kind`, as a whole). */
export function overPreset(
  preset: Preset<Readonly<Record<string, unknown>>>,
  given: ConfigSource,
): ConfigSource {
  const base = configFromObject(preset.settings, `--preset ${preset.name}`);
  return {
    values: mergedSettings(base.values, given.values),
    place: (path) => (hasPath(given.values, path) ? given.place(path) : base.place(path)),
  };
}

function hasPath(values: unknown, path: readonly PropertyKey[]): boolean {
  const [key, ...rest] = path;
  if (key === undefined) return true;
  if (typeof values !== 'object' || values === null || !Object.hasOwn(values, key)) return false;
  return (
    rest.length === 0 || hasPath(Object.entries(values).find(([name]) => name === key)?.[1], rest)
  );
}

/** Sums whose terms the user names: another sum is meant to be that, and not both together. */
const REPLACED_WHOLE = new Set(['losses']);

/** Settings of which some are replaced: objects key by key, those with a `kind` and `losses` as a whole. */
export function mergedSettings(
  before: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const result: Record<string, unknown> = { ...before };
  for (const [key, value] of Object.entries(now)) {
    const old = result[key];
    const isWhole = REPLACED_WHOLE.has(key);
    const merges = !isWhole && isPlain(old) && isPlain(value) && !('kind' in value);
    result[key] = merges ? mergedSettings(old, value) : value;
  }
  return result;
}

function isPlain(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
