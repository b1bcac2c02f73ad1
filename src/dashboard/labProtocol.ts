/**
 * What the model lab says, as types and limits, for the browser too: models that may be opened, a completion with every number
 * of its tokens, its scores. One model per request; two side by side are two requests.
 *
 *     GET  /api/lab/models                      LabModels
 *     POST /api/lab/complete  LabQuestion       LabCompletion; where `application/x-ndjson` is accepted, LabLine after LabLine
 *     POST /api/lab/score     LabScoreQuestion  LabScores
 *
 * A question is `application/json` from this server's own page, or from no page at all. Who closes the connection ends the
 * work. An answer that is no success is a `Failure` with status 400 (wrong question), 403 (another page), 404 (no such
 * model), 413 (too long), 415 (no JSON), 422 (the model cannot), 501 (no lab), 503 (too many wait).
 */
import type { Failure, SampleSequence } from './protocol.js';

/** The most that may be asked for. */
export const LAB_LIMITS = {
  promptCharacters: 100_000,
  newTokens: 1024,
  /** Tokens of a completion's beginning that is given. */
  givenTokens: 4096,
  alternatives: 20,
  completionTokens: 8192,
} as const;

/** What a model does: writes text, scores texts, or judges their steps. */
export type LabTask = 'text' | 'reward' | 'steps';

/** A model that the lab knows of. */
export interface LabModel {
  /** Names it in questions. The same model has the same id in every run. */
  readonly id: string;
  /** The run that it belongs to; null for one of the command line. */
  readonly run: string | null;
  /** `base`: what the run was started from; `final`: what it left. */
  readonly kind: 'given' | 'base' | 'checkpoint' | 'final';
  /** Of a checkpoint. */
  readonly step: number | null;
  /** For people: `base`, `step 20`, `final`, or the path of the command line. */
  readonly label: string;
  readonly task: LabTask;
  /** Why it is not opened, and what to do; null where it is. */
  readonly refusal: string | null;
}

/** A reward of a run. */
export interface LabReward {
  /** As the run was given it. */
  readonly spec: string;
  /** The column of the row that it compares with; null where it reads none, or is code. */
  readonly column: string | null;
  readonly refusal: string | null;
}

/** The rewards of a run. */
export interface LabRewards {
  readonly run: string;
  readonly rewards: readonly LabReward[];
  /** Why there are none; null where there are some. */
  readonly refusal: string | null;
}

/** What there is to try. */
export interface LabModels {
  readonly models: readonly LabModel[];
  readonly rewards: readonly LabRewards[];
}

/** How tokens are drawn. What is missing comes from the model's generation_config.json, else it changes nothing. */
export interface LabSampling {
  readonly temperature?: number | undefined;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly minP?: number | undefined;
  readonly repetitionPenalty?: number | undefined;
}

/** A prompt, and the beginning of its completion. */
export interface LabPrompt {
  readonly prompt: string;
  /** Whether the prompt is what a user says, by the chat template. */
  readonly chat: boolean;
}

/** What to complete. */
export interface LabQuestion extends LabSampling, LabPrompt {
  /** Id of the model. */
  readonly model: string;
  /** Token ids that the completion begins with. */
  readonly givenIds: readonly number[];
  /** What fits, at most 256, where it is missing. */
  readonly maxNewTokens?: number | undefined;
  readonly seed: number;
  /** How many of the most likely tokens are told at each place. */
  readonly alternatives: number;
}

/** A completion. */
export interface LabCompletion {
  /** The prompt as the model saw it. */
  readonly promptText: string;
  readonly promptTokens: number;
  /**
   * The completion, what was given included. `logprobs`: under the model itself (temperature 1, nothing left out), from
   * one pass over the whole text. `rolloutLogprobs`: under the distribution that each token was drawn from, as `posttrain
   * generate` tells; null at tokens that were given. `topTokens`: under the model itself.
   */
  readonly sequence: SampleSequence;
  /** [T][k] The ids of `topTokens`. */
  readonly alternativeIds: readonly (readonly number[])[];
  /** How many tokens at the beginning were given. */
  readonly givenTokens: number;
  readonly finishReason: 'eos' | 'stop' | 'length';
  /** As they were used. */
  readonly settings: Required<LabSampling> & {
    readonly maxNewTokens: number;
    readonly seed: number;
  };
  readonly seconds: {
    /** Until the model was there; 0 where it was. */
    readonly loading: number;
    readonly sampling: number;
    /** The pass that log-probabilities come from. */
    readonly scoring: number;
  };
}

/** A token as it was drawn. */
export interface LabToken {
  readonly id: number;
  readonly text: string;
  /** As in `rolloutLogprobs`. */
  readonly logprob: number;
}

/**
 * A line of a completion that is told as it grows: each token that is drawn, at last the whole or why there is none. What
 * fails before the first token has a status of its own, and no lines.
 */
export type LabLine =
  { readonly token: LabToken } | { readonly completion: LabCompletion } | Failure;

/** What to score, and by what. */
export interface LabScoreQuestion extends LabPrompt {
  /** Id of the model whose tokens they are. */
  readonly model: string;
  readonly completionIds: readonly number[];
  readonly finishReason: 'eos' | 'stop' | 'length';
  /** Columns of the row that rewards compare with. */
  readonly row: Readonly<Record<string, unknown>>;
  /** The run whose rewards score, or the reward model: one of both. */
  readonly run?: string | undefined;
  readonly judge?: string | undefined;
}

/** One reward's score. */
export interface LabScore {
  readonly name: string;
  readonly weight: number;
  /** Before the weight; null where there is none. */
  readonly score: number | null;
  /** Why there is no score. */
  readonly reason: string | null;
}

/** Scores of one completion. */
export interface LabScores {
  readonly scores: readonly LabScore[];
  /** The weighted sum; null where a score is missing. */
  readonly total: number | null;
}
