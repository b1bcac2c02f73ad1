/**
 * What the server asks of the model lab, which lies in another layer and another process: the server opens no model and
 * loads no libtorch. What may be opened was decided before it gets here.
 */
import type {
  LabCompletion,
  LabPrompt,
  LabQuestion,
  LabScoreQuestion,
  LabScores,
  LabToken,
} from './labProtocol.js';
import type { Failure } from './protocol.js';

/** A model that may be opened. */
export interface ModelSource {
  /** A folder, or a name of the Hub that is looked for in the cache only. */
  readonly from: string;
  /** Of an adapter, the model that it stands on; the adapter's own settings are not asked. */
  readonly base: string | null;
}

/** One completion. */
export interface CompleteJob extends Omit<LabQuestion, 'model'> {
  readonly model: ModelSource;
}

/** A reward that may be used, or why not. */
export interface RewardJob {
  /** As `--reward` takes it; of a model with the folder that may be opened. */
  readonly spec: string;
  /** Of a reward by a model. */
  readonly source: ModelSource | null;
  readonly refusal: string | null;
}

/** Scores of one completion. */
export interface ScoreJob
  extends LabPrompt, Pick<LabScoreQuestion, 'completionIds' | 'finishReason' | 'row'> {
  readonly model: ModelSource;
  readonly rewards: readonly RewardJob[];
  /** By name; 1 where there is none. */
  readonly weights: Readonly<Record<string, number>>;
}

/** What came of a job. */
export type LabAnswer<Value> = { readonly value: Value } | { readonly failure: Failure['error'] };

/** The lab. Jobs are done one after the other; an aborted one ends. */
export interface Lab {
  /** @param onToken hears of every token as it is drawn */
  complete(
    job: CompleteJob,
    signal: AbortSignal,
    onToken?: (token: LabToken) => void,
  ): Promise<LabAnswer<LabCompletion>>;
  score(job: ScoreJob, signal: AbortSignal): Promise<LabAnswer<LabScores>>;
  /** The column that each reward compares with. */
  rewardColumns(specs: readonly string[]): Promise<readonly (string | null)[]>;
  close(): Promise<void>;
}

/** The lab and what the command line allows it. */
export interface LabParts {
  readonly lab: Lab;
  /** Models that may be opened wherever they lie: folders, or names of the Hub in the cache. */
  readonly models: readonly string[];
  /** Whether files that runs name as their rewards may be run. */
  readonly allowsRunCode: boolean;
}
