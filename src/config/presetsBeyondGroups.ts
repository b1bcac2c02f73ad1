/** Presets of the GRPO family whose baseline is not the mean of the group, and ScaleRL. Read by `presets.ts`. */
import type { GrpoPreset } from './presets.js';

const SCALE_RL = 'Khatri et al. 2025 (ScaleRL), arXiv:2510.13786';
const RPP = 'Hu et al. 2025 (REINFORCE++), arXiv:2501.03262v9';

const ONE_SAMPLE = 'One sample per prompt, so more prompts, for as many completions as elsewhere.';

/** ScaleRL, RLOO, REINFORCE with its variants, ReMax, SCST, and preferences within a group. */
export const PRESETS_BEYOND_GROUPS: readonly GrpoPreset[] = [
  {
    name: 'scalerl',
    summary: 'ScaleRL: CISPO against stale rollouts, prompt mean, advantages scaled over the batch',
    paper: SCALE_RL,
    settings: {
      objective: { kind: 'cispo', low: 0, high: 5 },
      promptsPerStep: 48,
      groupSize: 16,
      advantageScale: 'centered',
      reduction: { kind: 'promptMean' },
      klCoef: 0,
      dropGroupsWithoutVariance: true,
      ratioAgainst: 'rollout',
      rolloutLag: 8,
      learningRate: 5e-7,
      warmupSteps: 100,
      weightDecay: 0.01,
      adamEpsilon: 1e-15,
    },
    sources: {
      objective:
        'A.17: "varying ε_max for CISPO between {4, 5, 8} produced no significant differences in performance".',
      promptsPerStep:
        'A.3: "We sample 48 prompts in each batch, each with 16 generations per prompt."',
      groupSize: 'A.3, the same sentence.',
      advantageScale: '§4: "Â_std is the standard deviation of all advantages Â_i in a batch".',
      reduction:
        '§3.2: "We find prompt-average achieves the highest asymptotic performance and therefore use this choice for ScaleRL."',
      klCoef: '§2: "resembles GRPO without any KL regularization term".',
      dropGroupsWithoutVariance:
        '§3.2: "The former merely drop the prompts, while latter resamples more prompts until the batch is full."',
      ratioAgainst: '§4: the weight is π_train/π_gen, against the generator.',
      rolloutLag:
        'A.11: "Both 4 and 8 off-policyness performed equally well, and we adopt 8 as the default setting".',
      learningRate:
        'A.3: "We use a constant learning rate of 5 × 10⁻⁷, AdamW optimizer with ϵ = 10⁻¹⁵, weight decay of 0.01".',
      warmupSteps: 'A.3: "a linear warmup of 100 steps".',
      weightDecay: 'A.3, as for learningRate.',
      adamEpsilon: 'A.3, as for learningRate.',
    },
    departures: [
      'The lag is exactly 8 steps; in the paper 8 is its bound. Nine rollouts are drawn before the first step, and those that wait are part of every checkpoint.',
      'The std of the advantages is that of the whole rollout, dropped groups included.',
      'No-positive-resampling (prompts with a pass rate of 0.9 leave the data) and forced interruptions of the thinking are not there.',
      'The output layer is computed in float32 because the whole model is, unless dtype says otherwise.',
    ],
  },
  {
    name: 'rloo',
    summary: 'RLOO: REINFORCE over completions with the mean of the others as baseline',
    paper: 'Ahmadian et al. 2024 (RLOO), arXiv:2402.14740',
    settings: {
      objective: { kind: 'reinforce' },
      groupSize: 4,
      baseline: 'leaveOneOut',
      advantageScale: 'none',
      reduction: { kind: 'sequenceSum' },
      klCoef: 0.03,
      klPlacement: 'reward',
      klEstimator: 'k1',
      learningRate: 1e-6,
    },
    sources: {
      objective: '§2.3: the gradient of REINFORCE, without a ratio.',
      groupSize: '§5.1, Table 1: k = 2 and 4.',
      baseline: '§2.3: the mean reward of the other k − 1 samples.',
      advantageScale: '§2.3: nothing is divided.',
      reduction: '§2.3: the log-probability of the whole completion.',
      klCoef: 'Appendix C: 0.03 for summaries, 0.10 for dialogue.',
      klPlacement: 'Eq. 3: R(x, y) = r(x, y) − β·log(π/π_ref).',
      klEstimator: 'Eq. 3.',
      learningRate: 'Appendix C: 1e-6, constant after a warm-up.',
    },
    departures: [
      'One update per rollout; the paper takes two without a ratio between them.',
      'No warm-up; the paper warms up over 3 % of its steps.',
      'TRL’s RLOO clips a ratio of whole completions: objective gspo is the nearest thing to it here.',
    ],
  },
  {
    name: 'reinforce',
    summary: 'REINFORCE: returns standardised over the batch, one sample per prompt',
    paper: 'Williams 1992, Machine Learning 8, 229–256',
    settings: {
      objective: { kind: 'reinforce' },
      promptsPerStep: 128,
      groupSize: 1,
      baseline: 'none',
      advantageScale: 'none',
      whitenAdvantages: true,
      reduction: { kind: 'sequenceSum' },
      klCoef: 0,
    },
    sources: {
      objective: 'Eq. 5.',
      promptsPerStep: 'Ours: with one sample per prompt the baseline comes from the batch.',
      groupSize: 'Ours, the same.',
      baseline: 'Ours, the same.',
      advantageScale: 'Nothing is divided but by whitenAdvantages.',
      whitenAdvantages: 'Ours: the mean of the batch is a reinforcement baseline of its §3.',
      reduction: 'Eq. 5: the sum over the time steps of an episode.',
      klCoef: 'There is no reference.',
    },
    departures: ['The baseline contains the sample itself: biased by 1/(tokens of the batch).'],
  },
  {
    name: 'reinforce++',
    summary:
      'REINFORCE++: KL in the reward of each token, returns standardised over the batch, PPO’s clip',
    paper: RPP,
    settings: {
      promptsPerStep: 128,
      groupSize: 1,
      clip: { low: 0.2, high: 0.2 },
      baseline: 'none',
      advantageScale: 'none',
      whitenAdvantages: true,
      reduction: { kind: 'sequenceMean' },
      klCoef: 0.001,
      klPlacement: 'reward',
      klEstimator: 'k1',
    },
    sources: {
      promptsPerStep: 'Ours: 128 completions, as elsewhere.',
      groupSize:
        '§3.1: "In its k = 1 configuration, it is designed for maximum efficiency and prompt diversity."',
      'clip.low': 'v2, §4.2.3: 0.2; v9 names none.',
      'clip.high': 'v2, §4.2.3: 0.2; v9 names none.',
      baseline: 'Eq. 4: the return itself.',
      advantageScale: 'Eq. 5 divides by the std of the batch, which whitenAdvantages does.',
      whitenAdvantages: '§3.1: "This global normalization is the core of REINFORCE++."',
      reduction: 'Eq. 1: 1/|o| Σₜ.',
      klCoef: 'v2, §4.2.3: 0.001; v9 names none.',
      klPlacement: '§3.1: "which incorporates the k1-style KL penalty directly into the reward".',
      klEstimator: '§3.1, the same sentence.',
    },
    departures: [
      'Appendix B.2 sets the advantage of all but the last token to 0, against its own Eq. 4, which is followed.',
    ],
  },
  {
    name: 'reinforce++-baseline',
    summary: 'REINFORCE++-baseline: mean of the group, scaled over the batch, k2 in the loss',
    paper: RPP,
    settings: {
      promptsPerStep: 32,
      groupSize: 4,
      clip: { low: 0.2, high: 0.2 },
      baseline: 'groupMean',
      advantageScale: 'none',
      whitenAdvantages: true,
      reduction: { kind: 'sequenceMean' },
      klCoef: 0.001,
      klPlacement: 'loss',
      klEstimator: 'k2',
    },
    sources: {
      promptsPerStep: 'Ours: 128 completions, as elsewhere.',
      groupSize:
        'Appendix B.2: "a global batch of size N = 1024 might consist of 1024/4 = 256 unique prompts".',
      'clip.low': 'v2, §4.2.3: 0.2; v9 names none.',
      'clip.high': 'v2, §4.2.3: 0.2; v9 names none.',
      baseline: '§3.2: "We first subtract the group mean reward."',
      advantageScale: 'Eq. 7: not by the std of the group.',
      whitenAdvantages:
        '§3.2: "We then normalize this initial advantage using the global batch statistics, not the unstable local group statistics."',
      reduction: 'Eq. 1: 1/|o| Σₜ.',
      klCoef: 'Not in the paper for this variant; 0.001 as for the other.',
      klPlacement:
        '§3.2: "this variant employs a separate KL loss term for regularization. We adopt the k2 estimator."',
      klEstimator: '§3.2, the same sentence.',
    },
    departures: [
      'The batch statistics are over tokens, as in the other variant; their mean is not quite 0, so that a group of equal rewards gets an advantage too.',
    ],
  },
  {
    name: 'remax',
    summary:
      'ReMax: REINFORCE with the reward of the greedy completion as baseline, KL in the reward',
    paper: 'Li et al. 2023 (ReMax), arXiv:2310.10505',
    settings: {
      objective: { kind: 'reinforce' },
      promptsPerStep: 128,
      groupSize: 1,
      baseline: 'greedy',
      advantageScale: 'none',
      reduction: { kind: 'tokenMean' },
      klCoef: 0.05,
      klPlacement: 'reward',
      klEstimator: 'k1',
      learningRate: 1e-6,
      schedule: { kind: 'cosine' },
      weightDecay: 0.1,
    },
    sources: {
      objective: 'Its code: returns times log-probabilities, one epoch.',
      promptsPerStep: ONE_SAMPLE,
      groupSize: 'Its code: one sampled and one greedy completion.',
      baseline:
        'Hu et al. 2025, arXiv:2501.03262v9, §2.1: "ReMax (Li et al., 2023) uses a greedy decoding response ô as the baseline".',
      advantageScale: 'The same: A = r(o) − r(ô).',
      reduction: 'Its code: the mean over the tokens of the batch.',
      klCoef: 'Its script for Llama 2 7B: 0.05.',
      klPlacement: 'Its code.',
      klEstimator: 'Its code.',
      learningRate: 'Its script for Llama 2 7B: 1e-6.',
      'schedule.kind': 'Its script for Llama 2 7B: cosine, no warm-up.',
      weightDecay: 'Its script for Llama 2 7B: 0.1.',
    },
    departures: [
      'No discount. Its code discounts by 0.99 and the last token once too often.',
      'The KL of the whole completion is charged to each of its tokens; its code charges each token its own.',
      'Sampling is not truncated; its code samples from a nucleus of 0.9 without telling the policy.',
    ],
  },
  {
    name: 'scst',
    summary: 'SCST: self-critical training on a metric of sentences, against the greedy completion',
    paper: 'Rennie et al. 2017 (SCST), arXiv:1612.00563',
    settings: {
      objective: { kind: 'reinforce' },
      promptsPerStep: 128,
      groupSize: 1,
      baseline: 'greedy',
      advantageScale: 'none',
      reduction: { kind: 'sequenceSum' },
      klCoef: 0,
      learningRate: 5e-5,
    },
    sources: {
      objective: 'Eq. 7.',
      promptsPerStep: ONE_SAMPLE,
      groupSize:
        '§3: "with a single Monte-Carlo sample w^s = (w^s_1 … w^s_T) from p_θ, for each training example in the minibatch".',
      baseline:
        '§4: "baseline the REINFORCE algorithm with the reward obtained by the current model under the inference algorithm used at test time".',
      advantageScale: 'Eq. 8.',
      reduction: 'Eq. 7: the sum over the words.',
      klCoef: 'The paper has none.',
      learningRate:
        '§5: "to optimize the CIDEr metric (specifically, the CIDEr-D metric) using ADAM with a learning rate 5 × 10⁻⁵".',
    },
    departures: [],
  },
  {
    name: 'group-preference',
    summary: 'The good completions of a group against all of them, by implicit reward',
    paper:
      'The simplified GRPO of the source notes; for pairs, Rafailov et al. 2023 (DPO), arXiv:2305.18290',
    settings: {
      objective: { kind: 'groupPreference', goodCompletions: null, beta: 0.1 },
      groupSize: 8,
      klCoef: 0,
    },
    sources: {
      objective:
        'L = −mean log(Σ_good eˢ / Σ_all eˢ), s = β·log(π/π_ref); all with the highest score and β = 0.1 are ours.',
      groupSize: 'Ours.',
      klCoef: 'The reference is in the objective.',
    },
    departures: [
      'Groups whose rewards are all equal, or of which a completion has no score, are left out.',
    ],
  },
];
