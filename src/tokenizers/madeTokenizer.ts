/** What the tokenizers made here have in common: the files beside tokenizer.json. */
import { ValueRangeError } from '../errors/index.js';
import { parseTokenizerFiles, type JsonObject } from './files.js';
import { JsonTokenizer } from './jsonTokenizer.js';
import type { Tokenizer } from './tokenizer.js';

/** The special tokens of a tokenizer that is made rather than read. */
export interface SpecialTokens {
  readonly eosToken: string;
  readonly padToken: string;
  readonly bosToken?: string | undefined;
}

/** What a made tokenizer consists of. */
export interface MadeTokenizer {
  /** What to call it in messages. */
  readonly source: string;
  /** Token to id, special tokens included. */
  readonly vocabulary: ReadonlyMap<string, number>;
  /** Merges in order of priority; none for single characters. */
  readonly merges: readonly (readonly [string, string])[];
  readonly specialTokens: SpecialTokens;
  /** Further special tokens, for example those of a chat template. */
  readonly additionalTokens?: readonly string[] | undefined;
  readonly preTokenizer: JsonObject | null;
  readonly decoder: JsonObject;
  readonly chatTemplate?: string | undefined;
}

/** Special tokens in the order of their ids, each once: padding, EOS, BOS where there is one, then the rest. */
export function specialTokenList(
  { eosToken, padToken, bosToken }: SpecialTokens,
  additional: readonly string[] = [],
): string[] {
  return [
    ...new Set([padToken, eosToken, ...(bosToken === undefined ? [] : [bosToken]), ...additional]),
  ];
}

/** Builds the tokenizer and its files, in the form that Python's `tokenizers` and `transformers` open. */
export function buildTokenizer(made: MadeTokenizer): Tokenizer {
  const { specialTokens, vocabulary } = made;
  const special = specialTokenList(specialTokens, made.additionalTokens);
  const added = special.map((content) => ({
    id: idOf(vocabulary, content),
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: made.preTokenizer,
    post_processor: bosProcessor(specialTokens.bosToken, vocabulary),
    decoder: made.decoder,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(vocabulary),
      merges: made.merges,
    },
  };
  const roles = {
    ...(specialTokens.bosToken === undefined ? {} : { bos_token: specialTokens.bosToken }),
    eos_token: specialTokens.eosToken,
    pad_token: specialTokens.padToken,
  };
  const config = {
    ...roles,
    clean_up_tokenization_spaces: false,
    // Any length: what a model can take is written in its own config.json.
    model_max_length: 1_000_000_000,
    tokenizer_class: 'PreTrainedTokenizerFast',
  };
  const encoder = new TextEncoder();
  const json = (value: JsonObject): Uint8Array =>
    encoder.encode(`${JSON.stringify(value, null, 2)}\n`);
  const contents = new Map([
    ['tokenizer.json', json(tokenizer)],
    ['tokenizer_config.json', json(config)],
    ['special_tokens_map.json', json(roles)],
  ]);
  if (made.chatTemplate !== undefined) {
    contents.set('chat_template.jinja', encoder.encode(made.chatTemplate));
  }
  return new JsonTokenizer(parseTokenizerFiles(made.source, contents));
}

function idOf(vocabulary: ReadonlyMap<string, number>, token: string): number {
  const id = vocabulary.get(token);
  if (id === undefined) {
    throw new ValueRangeError(
      `buildTokenizer: expected ${JSON.stringify(token)} to be in the vocabulary, but it is not.`,
    );
  }
  return id;
}

/** Puts BOS before every text that is encoded with special tokens. */
function bosProcessor(
  bosToken: string | undefined,
  vocabulary: ReadonlyMap<string, number>,
): JsonObject | null {
  if (bosToken === undefined) return null;
  const bos = { SpecialToken: { id: bosToken, type_id: 0 } };
  const text = (id: 'A' | 'B', type: number) => ({ Sequence: { id, type_id: type } });
  return {
    type: 'TemplateProcessing',
    single: [bos, text('A', 0)],
    pair: [bos, text('A', 0), text('B', 1)],
    special_tokens: {
      [bosToken]: { id: bosToken, ids: [idOf(vocabulary, bosToken)], tokens: [bosToken] },
    },
  };
}
