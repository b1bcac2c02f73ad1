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
}
