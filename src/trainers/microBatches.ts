/** Which rows are computed together: groups that fit a token budget, rows of one prompt beside each other. */
import {
  frequenciesDependOnLength,
  paddedTokens,
  sharingPays,
  type CausalLm,
} from '../models/index.js';
import type { TokenRow } from './tokenRows.js';

/** How rows are put together. */
export interface BatchOptions {
  /** Neighbouring rows that stay together, for losses that couple them: 1 unless said. */
  readonly unitSize?: number;
  /** The models that rows pass through up to the states before their completions; false where whole rows are computed. */
  readonly through?: readonly (Pick<CausalLm, 'config'> | null)[] | false | undefined;
}

/** Whether prompts that rows share are computed once. Frequencies that depend on how long a row is make its prompt its own. */
function sharesPrompts(through: BatchOptions['through'] = []): boolean {
  return (
    through !== false &&
    through.every((model) => model === null || !frequenciesDependOnLength(model.config))
  );
}

/**
 * Groups of row indices that fit a token budget, rows of one prompt together and longest first, since a prompt that rows
 * share is computed once; rows of similar length together where none do. How rows are grouped changes memory and time,
 * never a result: weights are computed for the whole optimizer step.
 */
export function microBatches(
  rows: readonly TokenRow[],
  maxTokens: number,
  { unitSize = 1, through }: BatchOptions = {},
): number[][] {
  const sharing = sharesPrompts(through);
  const prompts = sharing ? promptNumbers(rows) : [...rows.keys()];
  const units = Array.from({ length: rows.length / unitSize }, (_, unit) => {
    const indices = Array.from({ length: unitSize }, (_, at) => unit * unitSize + at);
    const longest = Math.max(...indices.map((index) => rowLength(rows[index])));
    return { indices, longest, prompt: prompts[unit * unitSize] ?? 0 };
  });
  const longestOfPrompt = new Map<number, number>();
  for (const { prompt, longest } of units)
    longestOfPrompt.set(prompt, Math.max(longest, longestOfPrompt.get(prompt) ?? 0));
  const order = (prompt: number): number => longestOfPrompt.get(prompt) ?? 0;
  units.sort(
    (a, b) =>
      order(b.prompt) - order(a.prompt) ||
      a.prompt - b.prompt ||
      b.longest - a.longest ||
      (a.indices[0] ?? 0) - (b.indices[0] ?? 0),
  );
  const loads = units.map(({ indices }) => ({
    indices,
    unit: indices.map((index) => ({ row: rows[index] as TokenRow, prompt: prompts[index] })),
  }));
  return evenly(maxTokens, (budget) => fill(loads, budget, sharing));
}

type LoadedUnit = { readonly indices: readonly number[]; readonly unit: readonly LoadedRow[] };

/** Groups of neighbours, each as large as the budget allows. */
function fill(units: readonly LoadedUnit[], budget: number, sharing: boolean): number[][] {
  const batches: { readonly indices: number[]; readonly load: Load }[] = [];
  for (const { indices, unit } of units) {
    const open = batches.at(-1);
    open?.load.add(unit);
    if (open && open.load.tokens() <= budget) {
      open.indices.push(...indices);
    } else {
      // What was too much for the group before it has closed that group.
      const load = new Load(sharing);
      load.add(unit);
      batches.push({ indices: [...indices], load });
    }
  }
  return batches.map(({ indices }) => indices);
}

/** How close to the smallest budget the search comes, in halvings of the largest. */
const HALVINGS = 6;

/**
 * As many groups as the budget makes, filled by the smallest one that makes no more of them: the largest group decides
 * how much memory a step takes, and a small rest beside it gains nothing.
 */
function evenly(maxTokens: number, fillBy: (budget: number) => number[][]): number[][] {
  let found = fillBy(maxTokens);
  let [below, above] = [0, maxTokens];
  for (let halving = 0; halving < HALVINGS && found.length > 1; halving++) {
    const middle = Math.floor((below + above) / 2);
    const tried = fillBy(middle);
    if (tried.length > found.length) below = middle;
    else [found, above] = [tried, middle];
  }
  return found;
}

function rowLength(row: TokenRow | undefined): number {
  return (row?.promptIds.length ?? 0) + (row?.completionIds.length ?? 0);
}

type LoadedRow = { readonly row: TokenRow; readonly prompt: number | undefined };

/** A token whose keys and values are copied for a row takes at most so much of the memory of a token that is computed. */
const COPIED = 1 / 16;

/**
 * How many tokens a micro-batch computes, padding included: its rectangle, or prompts once and completions with copies of
 * their prompts' keys and values, as `planContinuation` decides.
 */
class Load {
  private readonly sharing: boolean;
  private longest = 0;
  private longestPrompt = 0;
  /** Of the completions, in falling order. */
  private readonly lengths: number[] = [];
  private readonly prompts = new Set<number | undefined>();
  /** Rows whose prompts' keys and values are copied. */
  private copying = 0;

  constructor(sharing: boolean) {
    this.sharing = sharing;
  }

  add(rows: readonly LoadedRow[]): void {
    for (const { row, prompt } of rows) {
      const length = row.completionIds.length;
      this.longest = Math.max(this.longest, rowLength(row));
      this.longestPrompt = Math.max(this.longestPrompt, row.promptIds.length);
      this.prompts.add(prompt);
      if (length > 1) this.copying++;
      let place = this.lengths.length;
      while (place > 0 && (this.lengths[place - 1] ?? 0) < length) place--;
      this.lengths.splice(place, 0, length);
    }
  }

  tokens(): number {
    const rectangle = this.lengths.length * this.longest;
    const continued = this.prompts.size * this.longestPrompt + paddedTokens(this.lengths);
    if (!this.sharing || !sharingPays(continued, rectangle)) return rectangle;
    return continued + COPIED * this.copying * this.longestPrompt;
  }
}

/**
 * Micro-batches of rows that move the policy and of rows that cannot (no weight, or an advantage of 0 and no KL term),
 * apart from each other: the latter need no gradient, which is two thirds of the work. Where no row can move it, all are
 * treated alike, so that the optimizer gets the gradient of zero that they have.
 */
export function microBatchesByUse<Row extends TokenRow>(
  rows: readonly Row[],
  maxTokens: number,
  canMove: (row: Row) => boolean,
  options: BatchOptions = {},
): { indices: readonly number[]; moves: boolean }[] {
  const { unitSize = 1 } = options;
  const isUsed = rows.some(canMove) ? canMove : () => true;
  const moving = Array.from({ length: rows.length / unitSize }, (_, unit) =>
    rows.slice(unit * unitSize, (unit + 1) * unitSize).some(isUsed),
  );
  return [true, false].flatMap((moves) => {
    const chosen = [...rows.keys()].filter(
      (index) => moving[Math.floor(index / unitSize)] === moves,
    );
    const part = chosen.map((index) => rows[index] as Row);
    return microBatches(part, maxTokens, options).map((places) => ({
      indices: places.map((at) => chosen[at] as number),
      moves,
    }));
  });
}

/** The same number for rows with the same prompt, whether they share its array or hold equal ones. */
export function promptNumbers(rows: readonly Pick<TokenRow, 'promptIds'>[]): number[] {
  const byArray = new Map<readonly number[], number>();
  const byTokens = new Map<string, number>();
  return rows.map(({ promptIds }, row) => {
    const known = byArray.get(promptIds);
    if (known !== undefined) return known;
    const key = promptIds.join();
    const number = byTokens.get(key) ?? row;
    byTokens.set(key, number);
    byArray.set(promptIds, number);
    return number;
  });
}
