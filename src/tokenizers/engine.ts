/**
 * The one importer of `@huggingface/tokenizers`. Its published types do not resolve under Node's ESM rules (imports
 * without extensions), so the part that is used here is typed here.
 */
import { Tokenizer } from '@huggingface/tokenizers';
import { joinByteTokens } from './byteFallback.js';

/** The tokenizer object of the library, as far as posttrain uses it. */
export interface TokenizerEngine {
  encode(
    text: string,
    options: { readonly add_special_tokens: boolean },
  ): { readonly ids: number[]; readonly tokens: string[] };
  /** Refuses an empty list. */
  decode(
    ids: readonly number[],
    options: {
      readonly skip_special_tokens: boolean;
      readonly clean_up_tokenization_spaces: boolean;
    },
  ): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
  get_added_tokens_decoder(): ReadonlyMap<number, unknown>;
  get_vocab(withAddedTokens: boolean): ReadonlyMap<string, number>;
  readonly pre_tokenizer: { pre_tokenize(text: string): string[] } | null;
}

/** A decoder of the library; a Sequence holds others. */
interface Decoder {
  readonly config: { readonly type?: unknown };
  readonly decoders?: readonly Decoder[];
  decode_chain(tokens: string[]): string[];
}

const Constructor = Tokenizer as unknown as new (
  tokenizer: object,
  config: object,
) => TokenizerEngine & { readonly decoder: Decoder | null };

/** Builds the library's tokenizer from parsed files. Throws the library's own errors. */
export function createEngine(tokenizer: object, config: object): TokenizerEngine {
  // The library insists on these fields, which older files leave out.
  const absent = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  const engine = new Constructor({ ...absent, added_tokens: [], ...tokenizer }, config);
  if (engine.decoder !== null) correctByteFallback(engine.decoder);
  return engine;
}

function correctByteFallback(decoder: Decoder): void {
  if (decoder.config.type === 'ByteFallback') decoder.decode_chain = joinByteTokens;
  decoder.decoders?.forEach(correctByteFallback);
}
