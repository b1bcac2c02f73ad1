/** Which models the lab begins with, and how they are called. */
import type { LabModel } from '../labProtocol.js';

/** What the address says. */
export interface LabChoice {
  readonly run: string | undefined;
  /** Of the checkpoint that is to be tried. */
  readonly step: number | undefined;
  /** Ids; `none` leaves the second one out. */
  readonly a: string | undefined;
  readonly b: string | undefined;
}

/** Whether a model writes text and may be opened. */
export function canWrite({ task, refusal }: LabModel): boolean {
  return task === 'text' && refusal === null;
}

/**
 * Before and after, unless others are named: the base and the checkpoint of `step`, or the final model, or the last
 * checkpoint. Where only one of them may be opened, it stands alone.
 */
export function chosenModels(
  models: readonly LabModel[],
  { run, step, a, b }: LabChoice,
): { a: LabModel | undefined; b: LabModel | undefined } {
  const usable = models.filter(canWrite);
  const named = (id: string | undefined): LabModel | undefined =>
    usable.find((model) => model.id === id && model.run === run) ??
    usable.find((model) => model.id === id);
  const mine = usable.filter((model) => model.run === run);
  const before = mine.find(({ kind }) => kind === 'base');
  const after =
    mine.find((model) => step !== undefined && model.step === step) ??
    mine.find(({ kind }) => kind === 'final') ??
    mine.findLast(({ kind }) => kind === 'checkpoint');
  const first = named(a) ?? before ?? after ?? usable[0];
  if (b === 'none') return { a: first, b: undefined };
  const second = named(b) ?? (a === undefined && first !== after ? after : undefined);
  return { a: first, b: second };
}
