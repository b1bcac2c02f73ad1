/** What the dashboard's process and the lab's say to each other. */
import type {
  CompleteJob,
  Failure,
  LabCompletion,
  LabScores,
  LabToken,
  ScoreJob,
} from '../dashboard/index.js';

/** Where models compute. */
export interface LabPlacement {
  /** auto, cpu, cuda or cuda:N */
  readonly device: string;
  readonly dtype: 'float32' | 'bfloat16' | 'float64';
}

/** What is to be done. */
export type LabTask =
  | { readonly kind: 'complete'; readonly job: CompleteJob }
  | { readonly kind: 'score'; readonly job: ScoreJob };

/** To the lab: work, or an end to it. */
export type ToLab =
  | {
      readonly type: 'task';
      readonly id: number;
      readonly task: LabTask;
      readonly placed: LabPlacement;
    }
  | { readonly type: 'cancel'; readonly id: number };

/** From the lab: what came of the work of this number, or a token of it while it goes on. */
export interface FromLab {
  readonly id: number;
  readonly token?: LabToken;
  readonly value?: LabCompletion | LabScores;
  readonly failure?: Failure['error'];
}
