/**
 * What the dashboard's server says, as types alone: every answer and every event. The browser side imports this file and
 * nothing else of the server; what this file imports must need no Node either. Numbers that were not finite are null. Everything is JSON; texts of completions are data
 * of strangers, to be shown as text and never as markup.
 *
 *     GET /api/info                                   Info
 *     GET /api/runs                                   RunList
 *     GET /api/runs/:run                              RunDetail
 *     GET /api/runs/:run/metrics                      MetricCatalog
 *     GET /api/runs/:run/series?keys&from&to&points&since   Series
 *     GET /api/runs/:run/log?lines                    RunLog
 *     GET /api/runs/:run/samples?…SampleQuery         SamplePage
 *     GET /api/runs/:run/samples/facets               SampleFacets
 *     GET /api/runs/:run/samples/:index               SampleDetail
 *     GET /api/runs/:run/samples/:index/tokens/:token?side   TokenExplanation; side: completion (default) or rejected
 *     GET /api/runs/:run/groups/:step/:promptIndex    SampleGroup
 *     GET /api/runs/:run/prompts/:promptId            PromptHistory
 *     GET /api/compare?runs=id,id                     ConfigComparison
 *     GET /api/runs/:run/export/metrics.csv?keys      text/csv
 *     GET /api/runs/:run/export/samples.jsonl?…SampleQuery   the lines of the file as they are
 *     GET /api/events                                 text/event-stream of DashboardEvent
 *
 * An answer that is no success is a `Failure` with status 400 (wrong query), 401 (no token), 404 (no such run or sample),
 * 403 (wrong host).
 */

import type { LossRecord } from '../trainers/lossSettings.js';

/** Raised when an answer changes so that an older page could not read it. */
export const PROTOCOL_VERSION = 2;

/** What goes wrong. */
export interface Failure {
  readonly error: { readonly code: string; readonly message: string; readonly hint?: string };
}

/** What this server is. */
export interface Info {
  readonly protocol: number;
  /** Of posttrain. */
  readonly version: string;
  /** The folders that are watched, as they were given. */
  readonly folders: readonly string[];
}

// ---------------------------------------------------------------------------------------------------------------------
// Runs

/**
 * How a run stands. `starting`: no step yet; `diverged`: ended because a loss, gradient or reward was not finite;
 * `lost`: says that it is running, but its process is gone.
 */
export type DashboardState =
  'starting' | 'running' | 'finished' | 'stopped' | 'failed' | 'diverged' | 'lost';

/** One run in the list. */
export interface RunSummary {
  /** Names the run in every address: letters and digits. The same as long as its folder stays where it is. */
  readonly id: string;
  /** Its folder, relative to the one that is watched. */
  readonly name: string;
  /** The watched folder that it lies in, as it was given. */
  readonly folder: string;
  /** The run whose folder holds this one (stages of a pipeline, iterations of a job), or null. */
  readonly parent: string | null;
  /** sft, grpo, ppo, dpo … */
  readonly method: string;
  /** Name of the preset, where one was used. */
  readonly preset: string | null;
  readonly model: string | null;
  readonly data: string | null;
  readonly state: DashboardState;
  /** What ended the run, where it failed. */
  readonly message: string | null;
  readonly step: number;
  readonly totalSteps: number | null;
  /** ISO 8601. */
  readonly started: string | null;
  /** ISO 8601, of the last line or status. */
  readonly updated: string | null;
  /** Seconds in steps, pauses between two processes left out. */
  readonly seconds: number;
  /** Estimated from the latest steps, while it is running. */
  readonly secondsLeft: number | null;
  /** The last value of each headline metric that the run has: see `HEADLINE_METRICS`. */
  readonly latest: Readonly<Record<string, number | null>>;
  /** Warnings of known failure patterns, worst first. */
  readonly marks: readonly Mark[];
  /** Whole lines of metrics.jsonl and of samples.jsonl that are indexed. */
  readonly metricLines: number;
  readonly samples: number;
  /** Whether everything that lies on the disk has been read. */
  readonly indexed: boolean;
}

/** The runs that were found, newest first. */
export interface RunList {
  readonly runs: readonly RunSummary[];
  /** Folders that look like runs but cannot be read, with the reason. */
  readonly unreadable: readonly { readonly name: string; readonly reason: string }[];
}

/** Everything that the folder says of a run beside metrics and samples. */
export interface RunDetail extends RunSummary {
  /** Resolved settings of the method, as nested as they are. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Model, data, rewards. */
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly versions: Readonly<Record<string, unknown>>;
  readonly seed: number | null;
  readonly commit: string | null;
  readonly command: readonly string[];
  readonly resumed: readonly {
    readonly time: string;
    readonly fromStep: number;
    readonly changed: readonly string[];
  }[];
  /** Schema of the folder, see docs/run-format.md. */
  readonly formatVersion: number;
  readonly checkpoints: readonly { readonly step: number; readonly name: string }[];
  /** Ids of the runs inside this one. */
  readonly children: readonly string[];
}

/** The end of log.txt. */
export interface RunLog {
  readonly lines: readonly string[];
  /** Whether there are earlier lines. */
  readonly truncated: boolean;
}

/** Settings of runs side by side. */
export interface ConfigComparison {
  readonly runs: readonly { readonly id: string; readonly name: string }[];
  /** One per setting of any of the runs, `config.clip.high` or `inputs.model`, in alphabetical order. */
  readonly settings: readonly {
    readonly path: string;
    /** One per run, in their order, as JSON; null where the run has no such setting. */
    readonly values: readonly (string | null)[];
    readonly differs: boolean;
  }[];
}

// ---------------------------------------------------------------------------------------------------------------------
// Metrics

/** What a metric is about. The order is that of the page. */
export type MetricGroupId =
  | 'reward'
  | 'kl'
  | 'clipping'
  | 'lengths'
  | 'loss'
  | 'value'
  | 'evaluation'
  | 'throughput'
  | 'memory'
  | 'other';

/** Which way a healthy run goes. */
export type HealthyDirection = 'up' | 'down' | 'steady' | 'none';

/** One metric of a run. */
export interface MetricInfo {
  /** As metrics.jsonl has it, `reward/exact-match`. */
  readonly key: string;
  readonly group: MetricGroupId;
  /** Short name for an axis. */
  readonly label: string;
  /** nats, tokens, seconds, bytes, share (0 to 1), tokens/s, or nothing. */
  readonly unit: string | null;
  /** What it measures, in one or two sentences; empty where the metric is not known. */
  readonly explanation: string;
  /** What a healthy run does. */
  readonly healthy: string;
  readonly direction: HealthyDirection;
  /** Steps of its first and last value. */
  readonly firstStep: number;
  readonly lastStep: number;
  readonly count: number;
  /** Values that were not finite and are null. */
  readonly notFinite: number;
  readonly last: number | null;
  readonly min: number | null;
  readonly max: number | null;
}

/** A known failure pattern that a run shows. */
export interface Mark {
  /** `klRunsAway`, `entropyCollapses`, … The same rule has the same id. */
  readonly rule: string;
  /** `warning`: look at it; `failure`: the run is unlikely to come to something like this. */
  readonly severity: 'warning' | 'failure';
  /** Metrics whose charts get the mark. */
  readonly keys: readonly string[];
  /** Steps that show it. */
  readonly fromStep: number;
  readonly toStep: number;
  /** Short name: "KL runs away". */
  readonly title: string;
  /** What was seen, with the numbers and the threshold. */
  readonly finding: string;
  /** Why it matters and what to try. */
  readonly advice: string;
}

/** The metrics of a run, grouped, and what they show. */
export interface MetricCatalog {
  readonly run: string;
  readonly groups: readonly {
    readonly id: MetricGroupId;
    readonly title: string;
    readonly metrics: readonly MetricInfo[];
  }[];
  readonly marks: readonly Mark[];
  readonly firstStep: number;
  readonly lastStep: number;
  readonly lines: number;
  /** Raised when lines were cut off (a resumed run), so that what was fetched before may be wrong. */
  readonly revision: number;
}

/**
 * Values of metrics over the steps, decimated: all keys share the buckets, so that x is one array for all charts.
 * `keys`: names separated by commas, each encoded as a component of an address; all where missing. `from`, `to`: steps,
 * both included. `points`: most buckets, 1000 where missing, at most 10,000. `since`: the cursor of an earlier answer to
 * the same question without `from` and `to`; then only the buckets that have changed since or are new are sent, or all
 * where the buckets have become others.
 */
export interface Series {
  readonly run: string;
  readonly revision: number;
  readonly from: number;
  readonly to: number;
  /** Whether each bucket is one line of the file. */
  readonly exact: boolean;
  /** Of an answer to `since`: how many buckets of the earlier answer stand before these; else 0. */
  readonly first: number;
  /** For `since` of the next question. */
  readonly cursor: string;
  /** One entry per bucket, of its last line. */
  readonly buckets: {
    readonly step: readonly number[];
    /** Seconds in steps since the beginning of the run. */
    readonly seconds: readonly number[];
    /** Tokens since the beginning of the run; null where the method counts none. */
    readonly tokens: readonly number[] | null;
  };
  /** One entry per bucket; null where no line of it has a finite value. */
  readonly values: Readonly<Record<string, SeriesValues>>;
}

/** One metric in the buckets. */
export interface SeriesValues {
  /** Where `exact`, the values themselves. */
  readonly mean: readonly (number | null)[];
  /** Missing where `exact`. */
  readonly min?: readonly (number | null)[];
  readonly max?: readonly (number | null)[];
}

// ---------------------------------------------------------------------------------------------------------------------
// Samples

/** What a sample is: a completion that was drawn, or a pair of preference data. */
export type SampleKind = 'completion' | 'pair' | 'given';

/**
 * Which samples, all parts of the query are optional. Names are those of the address:
 *
 * `offset` (0), `limit` (50, at most 500), `sort` (`step`, `reward`, `length`, `advantage`; with `-` in front downwards),
 * `stepFrom`, `stepTo`, `rewardMin`, `rewardMax`, `lengthMin`, `lengthMax`, `finishReason`, `promptId`, `text` (in prompt
 * or completion, upper and lower case alike), `rewardName` (the reward that rewardMin and rewardMax are about; the sum of
 * all where missing).
 */
export interface SampleQuery {
  readonly offset?: number;
  readonly limit?: number;
  readonly sort?: SampleSort;
  readonly stepFrom?: number;
  readonly stepTo?: number;
  readonly rewardMin?: number;
  readonly rewardMax?: number;
  readonly lengthMin?: number;
  readonly lengthMax?: number;
  readonly finishReason?: string;
  readonly promptId?: string;
  readonly text?: string;
  readonly rewardName?: string;
  /** Only samples whose index is less: a list that is read does not move while the run writes more. */
  readonly upTo?: number;
}

/** By what samples are sorted. */
export type SampleSort =
  'step' | '-step' | 'reward' | '-reward' | 'length' | '-length' | 'advantage' | '-advantage';

/** A sample in a list. */
export interface SampleSummary {
  /** Names the sample as long as the revision is the same. */
  readonly index: number;
  readonly kind: SampleKind;
  readonly step: number;
  /** Place of the prompt in the step's batch. */
  readonly promptIndex: number;
  /** Place of the completion in its group. */
  readonly groupIndex: number;
  /** The same for the same prompt in every step. */
  readonly promptId: string;
  /** Beginnings, at most 200 and 400 characters. */
  readonly promptExcerpt: string;
  readonly completionExcerpt: string;
  /** Weighted sum; null where a reward gave no score. Of a pair: the margin of the implicit rewards. */
  readonly reward: number | null;
  readonly rewards: Readonly<Record<string, number | null>>;
  readonly advantage: number | null;
  /** stop, length, …; null for a pair. */
  readonly finishReason: string | null;
  /** Tokens of the completion (of the chosen one). */
  readonly length: number;
}

/** A page of samples. */
export interface SamplePage {
  readonly run: string;
  readonly revision: number;
  /** How many fit the query. */
  readonly total: number;
  /** The query's, else the one that gives the same samples when there are more. */
  readonly upTo: number;
  /** How many more would fit without it. */
  readonly newer: number;
  readonly offset: number;
  readonly samples: readonly SampleSummary[];
  /** False while the file is still being read, or the text search has not seen all: ask again later. */
  readonly complete: boolean;
}

/** What can be filtered by. */
export interface SampleFacets {
  readonly run: string;
  readonly revision: number;
  readonly total: number;
  /** Steps with samples. */
  readonly step: { readonly min: number; readonly max: number } | null;
  readonly finishReasons: readonly { readonly name: string; readonly count: number }[];
  readonly rewardNames: readonly string[];
  readonly reward: { readonly min: number; readonly max: number } | null;
  readonly length: { readonly min: number; readonly max: number } | null;
  /** Prompts that were sampled in more than one step come first, by how often. At most 200. */
  readonly prompts: readonly {
    readonly promptId: string;
    readonly excerpt: string;
    readonly steps: number;
    readonly samples: number;
  }[];
}

/** Who wrote what, in an episode with an environment. */
export interface SampleTurn {
  readonly role: string;
  readonly text: string;
}

/** A number per token; null where it has none. */
export type Stream = readonly (number | null)[];

/**
 * Numbers per token of a completion. Which of them there are depends on the method. `recorded` ones are in samples.jsonl,
 * the `derived` ones follow from them and from the settings (src/dashboard/derivedStreams.ts has the formulas).
 */
export interface SampleStreams {
  /** recorded: nats, under the policy before the step's first update. */
  readonly oldLogprobs?: Stream;
  /** recorded: nats, as the sampler reported. */
  readonly rolloutLogprobs?: Stream;
  /** recorded: nats, frozen reference. */
  readonly refLogprobs?: Stream;
  /** recorded: nats, under the policy in the last pass that the row had a part in (its last minibatch). */
  readonly logprobs?: Stream;
  /** recorded: nats, of the whole distribution the token was drawn from, in that pass. */
  readonly entropy?: Stream;
  /** recorded: as used in the loss. */
  readonly advantages?: Stream;
  /** recorded: V of the state before the token. */
  readonly values?: Stream;
  /** recorded: what the values are trained towards. */
  readonly returns?: Stream;
  /** recorded: the reward that was credited to the token: score, process reward and KL penalty where it is placed there. */
  readonly tokenRewards?: Stream;
  /** recorded: the weight of the token in the loss of its optimizer step; 0 where it does not count. */
  readonly tokenWeights?: Stream;
  /** recorded: 1 where the token is trained. */
  readonly mask?: Stream;
  /** derived: exp(logprobs − oldLogprobs), of the whole completion with GSPO. */
  readonly ratio?: Stream;
  /** derived: −1 clipped at the lower bound (the gradient is 0), 1 at the upper one, 0 not clipped. */
  readonly clipped?: Stream;
  /** derived: log π − log π_ref of the token (k1), nats. */
  readonly klPolicyReference?: Stream;
  /** derived: the estimate that the loss has, nats. */
  readonly klEstimate?: Stream;
  /** derived: r + γV′ − V, over the tokens that the model drew. */
  readonly tdErrors?: Stream;
  /** derived: what the policy term is multiplied by: truncated importance weight and off-policy mask. */
  readonly policyFactors?: Stream;
  /** derived: what GAE gives before whitening. */
  readonly gae?: Stream;
  /** derived: implicit reward β·(log π − log π_ref) of a preference pair, per token. */
  readonly implicitRewards?: Stream;
}

/** The name of a stream. */
export type StreamName = keyof SampleStreams;

/** The most likely tokens at each place, most likely first. */
export interface TopTokens {
  /** [T][k] */
  readonly tokens: readonly (readonly string[])[];
  /** [T][k] nats. */
  readonly logprobs: readonly (readonly number[])[];
}

/** What a loss is made of, so that a token's part can be computed: as trainers record it. */
export type LossSettings = LossRecord;

/** The steps of a completion that a process-reward model has judged. */
export interface SampleStep {
  /** Tokens [from, to) of the completion. */
  readonly from: number;
  readonly to: number;
  /** Probability that the step is right. */
  readonly score: number;
  /** Whether it is, in training data. */
  readonly label: boolean | null;
}

/** One token's part of the loss by the formula, with the numbers put in. */
export interface TokenExplanation {
  /** What the numbers are a part of. */
  readonly of: 'loss' | 'implicit reward';
  /** `L_policy = −w · min(ρ·Â, clip(ρ, 1 − ε, 1 + ε)·Â)` */
  readonly formula: string;
  /** The same with this token's numbers. */
  readonly withNumbers: string;
  readonly terms: readonly {
    readonly name: string;
    readonly formula: string;
    readonly withNumbers: string;
    readonly value: number;
  }[];
  /** Sum of the terms; null where too little was recorded. */
  readonly total: number | null;
  /** Which branch was taken and what follows ("clipped above: no gradient"), or what is missing. */
  readonly remark: string;
}

/** One sequence with its numbers per token. */
export interface SampleSequence {
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** Texts of the tokens; a byte that is no text by itself is shown as the tokenizer names it. */
  readonly tokens: readonly string[];
  readonly streams: SampleStreams;
  readonly topTokens: TopTokens | null;
  readonly steps: readonly SampleStep[];
}

/** One sample with everything that is known of it. */
export interface SampleDetail extends SampleSummary {
  readonly run: string;
  readonly revision: number;
  readonly prompt: string;
  readonly turns: readonly SampleTurn[];
  /** How many updates the weights that drew it had seen. */
  readonly weightVersion: number | null;
  readonly loss: LossSettings | null;
  /** The completion; of a pair the chosen one. */
  readonly completion: SampleSequence;
  /** Of a pair. */
  readonly rejected: SampleSequence | null;
}

/** A prompt with all completions that were recorded of it in one step. */
export interface SampleGroup {
  readonly run: string;
  readonly revision: number;
  readonly step: number;
  readonly promptIndex: number;
  readonly promptId: string;
  readonly prompt: string;
  /** By groupIndex. */
  readonly samples: readonly (SampleSummary & { readonly completion: string })[];
  readonly rewardMean: number | null;
  readonly rewardStd: number | null;
}

/** The same prompt through the steps. */
export interface PromptHistory {
  readonly run: string;
  readonly revision: number;
  readonly promptId: string;
  readonly prompt: string;
  /** Ascending steps; at most 500, evenly chosen. */
  readonly steps: readonly {
    readonly step: number;
    readonly rewardMean: number | null;
    readonly samples: readonly SampleSummary[];
  }[];
}

// ---------------------------------------------------------------------------------------------------------------------
// Events

/**
 * What `/api/events` sends, as `data:` of one JSON object, at most some per second. Nothing is sent twice: a page that
 * was not connected fetches again after `hello`. A browser has at most six connections to one server, all tabs together,
 * and a stream keeps one: tabs share a stream (ui/app/eventFeed.ts), or the seventh one hangs.
 */
export type DashboardEvent =
  | { readonly type: 'hello'; readonly protocol: number }
  /** A run appeared or its summary changed: the summary is the new one. */
  | { readonly type: 'run'; readonly run: RunSummary }
  | { readonly type: 'removed'; readonly id: string }
  /** New lines; lines before them are as they were while the revision stays. */
  | {
      readonly type: 'metrics';
      readonly id: string;
      readonly lines: number;
      readonly lastStep: number;
      readonly revision: number;
    }
  | {
      readonly type: 'samples';
      readonly id: string;
      readonly total: number;
      readonly revision: number;
    };

/** What the list of runs shows of each, as far as the run has it. */
export const HEADLINE_METRICS = [
  'reward',
  'klPolicyReference',
  'loss',
  'entropy',
  'completionLength',
  'eval/accuracy',
  'eval/reward',
  'eval/loss',
] as const;
