/** Imports nothing, not even a type: the dashboard's page is compiled with it, where there is no Node. */

/** Constants of a loss. Those that a method lacks are missing. docs/run-format.md explains them. */
export interface LossRecord {
  readonly method: string;
  /** ppoClip, gspo, cispo, reinforce, groupPreference; sigmoid, ipo, … */
  readonly objective: string;
  /** Distances from 1; with cispo bounds of the ratio itself. */
  readonly clipLow?: number;
  readonly clipHigh?: number;
  /** c of dual clip. */
  readonly dualClip?: number | null;
  /** token or sequence, of gspo. */
  readonly level?: string;
  /** old or rollout: what the ratio is taken against. */
  readonly ratioAgainst?: string;
  readonly klCoef?: number;
  readonly klPlacement?: string;
  readonly klEstimator?: string;
  readonly reduction?: string;
  readonly discount?: number;
  readonly gaeLambda?: number;
  readonly vfCoef?: number;
  readonly valueClip?: number | null;
  readonly entropyCoef?: number;
  readonly temperature?: number;
  readonly beta?: number;
  /** Of truncated importance weights exp(old − rollout): the largest, token or sequence, truncate or mask. */
  readonly importanceCap?: number;
  readonly importanceLevel?: string;
  readonly importanceMode?: string;
  /** nats per token: how far the policy may have moved away from a bad sample that still counts. */
  readonly offPolicyThreshold?: number;
  /**
   * Where the loss is one of whole completions, this one's part of it is slope·Σ(log π − log π_ref) + rest, without π_ref
   * where `refLogprobs` are missing. ∂L/∂log π(y), 1/nats; of a pair `slope` is that of the chosen completion and `rest`
   * that of each of the two.
   */
  readonly slope?: number;
  readonly rejectedSlope?: number;
  readonly rest?: number;
  /** z of KTO, nats: what the log-ratio is compared with; λ of this row's label. */
  readonly klBaseline?: number;
  readonly labelWeight?: number;
}
