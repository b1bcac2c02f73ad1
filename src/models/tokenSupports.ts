/**
 * The supports of a truncated distribution: which tokens each completion token was drawn among. Knows the checks of them
 * and how they become a mask over logits. Internal to this folder.
 */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor, tidy, type Tensor } from '../torch/index.js';
import type { TokenLogprobsInput } from './tokenLogprobs.js';

/** The ids a token was drawn among; null for the whole vocabulary. */
export type TokenSupport = Int32Array | null;

/**
 * The supports of all completion tokens, one after the other; undefined where none restricts anything.
 *
 * @param vocabulary V
 * @throws ShapeError for a wrong number of entries; ValueRangeError for an id outside the vocabulary or a support
 *   without the token itself
 */
export function flattenSupports(
  { inputIds, promptLengths, lengths, supports }: TokenLogprobsInput,
  vocabulary: number,
): readonly TokenSupport[] | undefined {
  if (supports === undefined) return undefined;
  if (supports.length !== lengths.length)
    throw new ShapeError(
      `tokenLogprobs: expected supports for ${lengths.length} rows, received ${supports.length}.`,
    );
  const ids = inputIds.toTypedArray();
  const columns = inputIds.size(1);
  const flat = lengths.flatMap((length, row) => {
    const prompt = promptLengths[row] ?? 0;
    const entries = supports[row];
    if (entries === undefined) return Array<TokenSupport>(length - prompt).fill(null);
    if (entries.length !== length - prompt)
      throw new ShapeError(
        `tokenLogprobs: expected supports[${row}] to have ${length - prompt} entries, one per token of the completion, received ${entries.length}.`,
      );
    entries.forEach((support, t) => {
      if (support === null) return;
      assertSupport(support, ids[row * columns + prompt + t] ?? -1, vocabulary, `[${row}][${t}]`);
    });
    return entries;
  });
  return flat.some((support) => support !== null) ? flat : undefined;
}

function assertSupport(support: Int32Array, token: number, vocabulary: number, at: string): void {
  const wrong = support.find((id) => id < 0 || id >= vocabulary);
  if (wrong !== undefined)
    throw new ValueRangeError(
      `tokenLogprobs: expected ids from 0 to ${vocabulary - 1} in supports${at}, received ${wrong}.`,
    );
  if (!support.includes(token))
    throw new ValueRangeError(
      `tokenLogprobs: expected supports${at} to hold the token ${token} that was drawn, it holds ${support.length} others.`,
      { hint: 'Supports belong to the completion they were sampled with, token by token.' },
    );
}

/**
 * Which entries lie outside the supports of consecutive tokens.
 *
 * @param logits [n, V]
 * @param supports of the n tokens
 * @returns [n, V] bool; undefined where every support is the whole vocabulary
 */
export function outsideSupports(
  logits: Tensor,
  supports: readonly TokenSupport[],
): Tensor | undefined {
  if (supports.every((support) => support === null)) return undefined;
  const { device, shape } = logits;
  const vocabulary = logits.size(-1);
  const inside = new Float64Array(supports.reduce((sum, ids) => sum + (ids?.length ?? 0), 0));
  let filled = 0;
  supports.forEach((ids, row) => {
    for (const id of ids ?? []) inside[filled++] = row * vocabulary + id;
  });
  const isRestricted = Uint8Array.from(supports, (ids) => (ids === null ? 0 : 1));
  return tidy(() =>
    tensor(isRestricted, { shape: [supports.length, 1], dtype: 'bool', device })
      .expand(shape)
      .flatten()
      .scatter(0, tensor(inside, { dtype: 'int64', device }), 0)
      .view(shape),
  );
}
