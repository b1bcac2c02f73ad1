/** What a run needs of a trainer, whatever its method. A trainer never reads files, flags or the environment. */
import type { FinishReason } from '../generation/index.js';
import type { Turn } from '../rewards/index.js';
import type { Tensor } from '../torch/index.js';
import type { LossRecord } from './lossSettings.js';

/** Numbers of one completion, one per token: what an inspector shows. */
export interface TokenStreams {
  /** nats, under the policy that is trained, before this step's first update. */
  readonly oldLogprobs: readonly number[];
  /** nats, as the sampler reported them. */
  readonly rolloutLogprobs: readonly number[];
  /** nats, under the frozen reference, where there is one. */
  readonly refLogprobs?: readonly number[] | undefined;
  readonly advantages: readonly number[];
  /** V of the state before each token, where there is a value model. */
  readonly values?: readonly number[] | undefined;
  /** What the values are trained towards. */
  readonly returns?: readonly number[] | undefined;
  /** nats, under the policy in the last pass of the updates that the row had a part in, before its optimizer step. */
  readonly logprobs?: readonly number[] | undefined;
  /** nats, of the distribution of each token, in that pass. */
  readonly entropy?: readonly number[] | undefined;
  /** What was credited to each token: score, what a process reward earned there, KL penalty where it is placed there. */
  readonly tokenRewards?: readonly number[] | undefined;
  /** Weight of each token in the loss of its optimizer step. */
  readonly tokenWeights?: readonly number[] | undefined;
  /** 1 where the token is trained. */
  readonly mask: readonly number[];
}

/** The most likely tokens at each place, most likely first. */
export interface TopTokenRecord {
  /** [T][k] */
  readonly ids: readonly (readonly number[])[];
  readonly tokens: readonly (readonly string[])[];
  /** nats, of the distribution that `streams.logprobs` are of. */
  readonly logprobs: readonly (readonly number[])[];
}

/** A step of a completion that a process reward model judged. */
export interface StepScore {
  /** Tokens [from, to) of the completion. */
  readonly from: number;
  readonly to: number;
  /** The probability that it is right. */
  readonly score: number;
  /** Whether it is right, where that is known. */
  readonly label?: boolean | undefined;
}

/** One completion of a step with everything that is known of it. A line of samples.jsonl: docs/run-format.md. */
export interface SampleRecord {
  /** Counted from 1: the trainer's `step` after it. */
  readonly step: number;
  /** Place of the prompt in the step's batch. */
  readonly promptIndex: number;
  /** Place of the completion in its group. */
  readonly groupIndex: number;
  /** Tokens that follow the prompt. */
  readonly length: number;
  readonly finishReason: FinishReason;
  /** Weighted sum of the rewards; null where one of them gave no score. */
  readonly reward: number | null;
  readonly rewards: Readonly<Record<string, number | null>>;
  /** Mean over the row's tokens. */
  readonly advantage: number;
  /** How many updates the weights that drew it had seen. */
  readonly weightVersion: number;
  readonly prompt: string;
  readonly completion: string;
  /** With an environment, who wrote what. */
  readonly turns?: readonly Turn[] | undefined;
  readonly tokenIds: readonly number[];
  readonly tokens: readonly string[];
  /** What the loss of the step was made of. */
  readonly loss?: LossRecord | undefined;
  readonly streams: TokenStreams;
  /** By a process reward model among the rewards. */
  readonly steps?: readonly StepScore[] | undefined;
  readonly topTokens?: TopTokenRecord | undefined;
}

/** One completion of a pair, with its numbers per token. */
export interface PairSide {
  readonly tokenIds: readonly number[];
  readonly tokens: readonly string[];
  readonly streams: {
    /** nats, under the policy before the step's update. */
    readonly logprobs: readonly number[];
    /** nats, under the frozen reference; missing where there is none, or only its sums are known. */
    readonly refLogprobs?: readonly number[] | undefined;
    readonly mask: readonly number[];
  };
}

/** A pair of preference data of a step. A line of samples.jsonl: docs/run-format.md. */
export interface PairRecord extends PairSide {
  readonly kind: 'pair';
  readonly step: number;
  /** Place of the pair in the step's batch. */
  readonly promptIndex: number;
  readonly groupIndex: 0;
  /** Tokens of the chosen completion. */
  readonly length: number;
  /** Implicit reward of the chosen less that of the rejected. */
  readonly reward: number;
  readonly rewards: { readonly chosen: number; readonly rejected: number };
  readonly prompt: string;
  /** The chosen one. */
  readonly completion: string;
  readonly loss: LossRecord;
  readonly rejected: PairSide & { readonly text: string };
}

/** A completion of the data with its label or labels. A line of samples.jsonl: docs/run-format.md. */
export interface GivenRecord {
  readonly kind: 'given';
  readonly step: number;
  /** Place of the row in the step's batch. */
  readonly promptIndex: number;
  readonly groupIndex: 0;
  readonly length: number;
  /** KTO: implicit reward. Process rewards: the probability that all steps are right. */
  readonly reward: number;
  /** KTO: `desirable`, 1 or 0. Process rewards: `accuracy`, the share of steps that are judged as they are labelled. */
  readonly rewards: Readonly<Record<string, number>>;
  readonly prompt: string;
  readonly completion: string;
  readonly tokenIds: readonly number[];
  readonly tokens: readonly string[];
  readonly loss: LossRecord;
  readonly streams: {
    /** nats, under the policy before the step's update. */
    readonly logprobs?: readonly number[] | undefined;
    readonly refLogprobs?: readonly number[] | undefined;
    /** Weight of each judgement in the loss. */
    readonly tokenWeights?: readonly number[] | undefined;
    /** 1 where the token has a part in the loss. */
    readonly mask: readonly number[];
  };
  readonly steps?: readonly StepScore[] | undefined;
}

/** What one step tells. */
export interface StepReport {
  /** By name; documented in docs/algorithms/<method>.md. */
  readonly metrics: Readonly<Record<string, number>>;
  readonly samples: readonly SampleRecord[];
  /** Of methods that learn from pairs that are given. */
  readonly pairs?: readonly PairRecord[] | undefined;
  /** Of methods that learn from single completions that are given with labels. */
  readonly given?: readonly GivenRecord[] | undefined;
  /** Sentences for the log: rewards that failed, numbers that look wrong. */
  readonly warnings: readonly string[];
}

/** One method on its models and data, step by step. */
export interface Trainer {
  readonly method: string;
  /** Steps that are done. */
  readonly step: number;
  readonly totalSteps: number;
  /** Does one step. @throws NumericsError before the update when something is not finite */
  trainStep(): Promise<StepReport>;
  /** Everything but tensors that the next step depends on, as JSON can hold it. */
  state(): Record<string, unknown>;
  /** The tensors beside the model's that the next step depends on, by name. */
  tensors(): Map<string, Tensor>;
  /** Goes back to what `state` and `tensors` gave. @throws CheckpointError when they do not fit this trainer */
  restore(state: Readonly<Record<string, unknown>>, tensors: ReadonlyMap<string, Tensor>): void;
}
