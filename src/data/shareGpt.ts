/** Rows in the form of ShareGPT, `{conversations: [{from, value}, …]}`, as the rows of messages that they are. */
import type { Row } from './row.js';

/** Names of speakers that chat templates do not know; others stay as they are. */
const ROLES: ReadonlyMap<unknown, string> = new Map([
  ['human', 'user'],
  ['gpt', 'assistant'],
]);

/** Columns by which a row has a format already: further ones are for the rewards. */
const TAKEN = ['prompt', 'chosen', 'text'];

/**
 * The row with its conversation in `messages`. TRL's `maybe_convert_to_chatml` renames column and fields so for SFT; we
 * rename `human` and `gpt` too, which TRL hands to the chat template as they are.
 */
export function withMessages(row: Row): Row {
  const { conversations, ...others } = row.values;
  const turns = others['messages'] ?? conversations;
  if (!Array.isArray(turns) || TAKEN.some((column) => (others[column] ?? null) !== null))
    return row;
  if (turns === others['messages'] && !turns.some(isTurn)) return row;
  return { ...row, values: { ...others, messages: turns.map(messageOf) } };
}

function isTurn(turn: unknown): turn is { from: unknown; value: unknown } {
  return typeof turn === 'object' && turn !== null && 'from' in turn && 'value' in turn;
}

function messageOf(turn: unknown): unknown {
  if (!isTurn(turn)) return turn;
  const { from, value, ...others } = turn;
  return { ...others, role: ROLES.get(from) ?? from, content: value };
}
