/**
 * Rows that continue the same prompt, laid out so that the prompt is computed once: GRPO's groups, both completions of a
 * preference pair. Internal to this folder.
 */
import type { PromptedRows, SharedPrompts } from '../nn/index.js';
import {
  arange,
  cat,
  isAutocastOnCpu,
  runtimeInfo,
  tensor,
  tidy,
  zeros,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import type { ContinuedRows } from './causalLm.js';
import type { DecoderConfig, LayerKind } from './decoderConfig.js';

/** Where each token stands. */
export interface ContinuationPlan {
  readonly prompts: ContinuedRows['prompts'];
  readonly parts: ContinuedRows['parts'];
  /** Of every distinct prompt: a row that begins with it. */
  readonly promptRows: readonly number[];
  /** Of every row: which of the distinct prompts is its own. */
  readonly promptOf: readonly number[];
  /** Of every part: its rows. */
  readonly partRows: readonly (readonly number[])[];
  /** N */
  readonly tokens: number;
}

/** What is saved must be worth what stands beside it: a mask and copies of the prompts' keys and values, but in float32. */
const LEAST_SAVING = 1 / 16;
/** Rows stand in one part while the shortest has at least this share of the longest one's tokens. */
const LEAST_LENGTH = 0.8;

/** Rows that stand in one part, from all of them, the longest first. */
function partsOf<Row>(longestFirst: readonly Row[], lengthOf: (row: Row) => number): Row[][] {
  const parts: Row[][] = [];
  let longest = Infinity;
  for (const row of longestFirst) {
    const open = parts.at(-1);
    if (open && standsWith(longest, lengthOf(row))) open.push(row);
    else {
      parts.push([row]);
      longest = lengthOf(row);
    }
  }
  return parts;
}

function standsWith(longest: number, length: number): boolean {
  return length >= LEAST_LENGTH * longest;
}

/**
 * Tokens of completions that continue shared prompts, with the padding of their parts.
 *
 * @param lengths of the completions, in falling order
 */
export function paddedTokens(lengths: readonly number[]): number {
  let [sum, longest] = [0, Infinity];
  for (const length of lengths) {
    if (!standsWith(longest, length)) longest = length;
    sum += longest;
  }
  return sum;
}

/** Whether prompts are computed once, by the tokens that are computed then and those of each row by itself. */
export function sharingPays(tokens: number, apart: number): boolean {
  return tokens <= (1 - LEAST_SAVING) * apart;
}

/**
 * Plans the computation of rows without their last tokens, which predict nothing that is asked for.
 *
 * @param sharedPrompts per row a number: rows with the same one begin with the same prompt
 * @returns null where computing each row by itself is no more work
 */
export function planContinuation({
  promptLengths,
  lengths,
  sharedPrompts,
}: {
  readonly promptLengths: readonly number[];
  readonly lengths: readonly number[];
  readonly sharedPrompts: readonly number[];
}): ContinuationPlan | null {
  const rowOfPrompt = new Map<number, number>();
  sharedPrompts.forEach((prompt, row) => {
    if (!rowOfPrompt.has(prompt)) rowOfPrompt.set(prompt, row);
  });
  const promptRows = [...rowOfPrompt.values()];
  const placeOfPrompt = new Map([...rowOfPrompt.keys()].map((prompt, place) => [prompt, place]));
  const promptLength = (row: number): number => promptLengths[row] ?? 0;
  const ownLength = (row: number): number =>
    Math.max(0, (lengths[row] ?? 0) - promptLength(row) - 1);

  const longestFirst = [...lengths.keys()]
    .filter((row) => ownLength(row) > 0)
    .sort((a, b) => ownLength(b) - ownLength(a) || a - b);
  const columns = Math.max(...promptRows.map(promptLength));
  const promptOf = sharedPrompts.map((prompt) => placeOfPrompt.get(prompt) ?? 0);
  // Rows of one prompt beside each other: attention reads it once for all of them.
  const partRows = partsOf(longestFirst, ownLength).map((rows) =>
    rows.toSorted((a, b) => (promptOf[a] ?? 0) - (promptOf[b] ?? 0)),
  );
  const parts = partRows.map((rows) => ({
    columns: Math.max(...rows.map(ownLength)),
    promptOf: rows.map((row) => promptOf[row] ?? 0),
  }));
  const tokens =
    promptRows.length * columns +
    parts.reduce((sum, part) => sum + part.columns * part.promptOf.length, 0);
  const apart = lengths.length * Math.max(...lengths.map((length) => length - 1));
  if (!sharingPays(tokens, apart)) return null;
  const prompts = { columns, lengths: promptRows.map(promptLength) };
  return { prompts, parts, promptRows, promptOf, partRows, tokens };
}

/**
 * Where the N tokens come from in the flattened [B, L] rows (padding: from any token of the row), and where the state before
 * each completion token stands among the N, row by row.
 *
 * @param columns L
 */
export function continuedPlaces(
  { prompts, parts, promptRows, promptOf, partRows }: ContinuationPlan,
  rows: { readonly promptLengths: readonly number[]; readonly lengths: readonly number[] },
  columns: number,
): { sources: number[]; predictors: number[] } {
  const sources: number[] = [];
  promptRows.forEach((row, prompt) => {
    const last = (prompts.lengths[prompt] ?? 1) - 1;
    for (let at = 0; at < prompts.columns; at++) sources.push(row * columns + Math.min(at, last));
  });
  const starts = new Map<number, number>();
  parts.forEach((part, index) => {
    for (const row of partRows[index] ?? []) {
      starts.set(row, sources.length);
      const first = row * columns + (rows.promptLengths[row] ?? 0);
      const last = row * columns + (rows.lengths[row] ?? 0) - 1;
      for (let at = 0; at < part.columns; at++) sources.push(Math.min(first + at, last));
    }
  });
  const predictors = rows.lengths.flatMap((length, row) => {
    const prompt = promptOf[row] ?? 0;
    const end = prompt * prompts.columns + (prompts.lengths[prompt] ?? 0) - 1;
    const start = starts.get(row) ?? 0;
    const drawn = length - (rows.promptLengths[row] ?? 0);
    return Array.from({ length: drawn }, (_, t) => (t === 0 ? end : start + t - 1));
  });
  return { sources, predictors };
}

/** What a decoder's layers need to know of continued rows. */
export interface ContinuedSight {
  /** [N] int64 */
  readonly positions: Tensor;
  readonly sights: Readonly<Record<LayerKind, SharedPrompts>>;
}

/** Stands after every query: the padding of a prompt. */
const NEVER = 2 ** 30;

/** Positions and masks. A query looks at its prompt and at its own row up to itself; in a sliding layer at the last of them. */
export function continuedSight(
  config: Pick<DecoderConfig, 'slidingWindow' | 'layerKinds' | 'attentionSoftcap'>,
  { prompts, parts }: Pick<ContinuedRows, 'prompts' | 'parts'>,
  { dtype, computeDtype, device }: { dtype: Dtype; computeDtype: Dtype; device: string },
): ContinuedSight {
  const { slidingWindow, layerKinds, attentionSoftcap } = config;
  const { columns, lengths } = prompts;
  const rows = lengths.length;
  const isPlain =
    device === 'cpu' &&
    computeDtype === dtype &&
    (dtype === 'float32' || (dtype === 'bfloat16' && runtimeInfo().widensBfloat16)) &&
    attentionSoftcap === null &&
    !isAutocastOnCpu();
  const integers = (values: readonly number[], shape: number[]): Tensor =>
    tensor(Int32Array.from(values), { shape, dtype: 'int64', device });
  const ownPositions = parts.map(({ promptOf, columns: own }) =>
    integers(
      promptOf.flatMap((prompt) =>
        Array.from({ length: own }, (_, at) => (lengths[prompt] ?? 0) + at),
      ),
      [promptOf.length, own],
    ),
  );
  const promptPositions = arange(0, columns, { device });
  const keysOfPrompts = integers(
    lengths.flatMap((length) =>
      Array.from({ length: columns }, (_, at) => (at < length ? at : NEVER)),
    ),
    [rows, columns],
  );
  const isEven = lengths.every((length) => length === columns);
  const sight = (window: number | null): SharedPrompts => {
    const looks = (queries: Tensor, keys: Tensor): Tensor => {
      const before = keys.unsqueeze(1).le(queries.unsqueeze(2));
      const seen =
        window === null
          ? before
          : before.logicalAnd(keys.unsqueeze(1).gt(queries.unsqueeze(2).sub(window)));
      return seen.unsqueeze(1);
    };
    const all = promptPositions.unsqueeze(0);
    const mask = window !== null && window < columns ? looks(all, all) : null;
    return {
      prompts: { rows, columns, mask, lengths },
      parts: parts.map(({ promptOf, columns: own }, index): PromptedRows => {
        const part = { rows: promptOf.length, columns: own, promptOf };
        if (isPlain && (window === null || window >= columns + own))
          return { ...part, masked: null };
        const place = integers(promptOf, [promptOf.length]);
        const positions = ownPositions[index] as Tensor;
        const partMask = tidy(() => {
          // Where prompts are equally long all rows look alike.
          const queries = isEven ? positions.narrow(0, 0, 1) : positions;
          const ofPrompts = isEven ? all : keysOfPrompts.indexSelect(0, place);
          const keys = cat([ofPrompts, queries], 1);
          const seen = looks(queries, keys);
          return zeros(seen.shape, { dtype, device }).maskedFill(seen.logicalNot(), -Infinity);
        });
        return { ...part, masked: { mask: partMask, promptOf: place } };
      }),
    };
  };
  const full = sight(null);
  const slides = slidingWindow !== null && layerKinds.includes('sliding');
  const flat = [promptPositions.repeat([rows]), ...ownPositions.map((own) => own.flatten())];
  return {
    positions: cat(flat),
    sights: { full, sliding: slides ? sight(slidingWindow) : full },
  };
}
