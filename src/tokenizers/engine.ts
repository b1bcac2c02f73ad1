/**
 * Runs a tokenizer.json: added tokens, normalizer, pre-tokenizer, model, post-processor, decoder, each as the Rust
 * library `tokenizers` has it. Knows no files and no chat templates. Truncation and padding of the file are left aside, as
 * transformers does unless asked for them.
 */
import { AddedTokenFinder, readAddedTokens } from './addedTokens.js';
import { createDecoder, type Decoder } from './decoders.js';
import type { JsonObject } from './files.js';
import { createModel, tokensById, type WordModel } from './models.js';
import { createNormalizer } from './normalizers.js';
import { createPostProcessor, type PostProcessor } from './postProcessors.js';
import { createPreTokenizer, type PreTokenizer } from './preTokenizers.js';

/** What a text became. */
export interface Encoded {
  readonly ids: number[];
  /** The first character that the model has no token for and left out, if there was one. */
  readonly dropped: string | undefined;
}

/** A tokenizer in memory. */
export class TokenizerEngine {
  /** Ids of added tokens. */
  readonly addedIds: ReadonlySet<number>;
  /** One more than the largest id. */
  readonly vocabSize: number;

  private readonly model: WordModel;
  private readonly finder: AddedTokenFinder;
  private readonly preTokenize: PreTokenizer;
  private readonly postProcess: PostProcessor;
  private readonly decodeTokens: Decoder;
  private readonly tokens: ReadonlyMap<number, string>;
  /** Where a token's text is not its name: an added token that is looked for normalized is written normalized. */
  private readonly written: ReadonlyMap<number, string>;
  private readonly addedByContent: ReadonlyMap<string, number>;
  private readonly specialTokens: ReadonlySet<string>;

  /**
   * @param tokenizer the parsed file
   * @param furtherSpecialTokens special for decoding although the file does not say so
   * @throws CheckpointError if a part is of an unknown type or a field is wrong; the message is half a sentence
   */
  constructor(tokenizer: JsonObject, furtherSpecialTokens: readonly string[] = []) {
    this.model = createModel(tokenizer['model']);
    const normalize = createNormalizer(tokenizer['normalizer']);
    this.preTokenize = createPreTokenizer(tokenizer['pre_tokenizer']);
    this.postProcess = createPostProcessor(tokenizer['post_processor']);
    this.decodeTokens = createDecoder(tokenizer['decoder']);
    const added = readAddedTokens(tokenizer['added_tokens'], this.model.vocabulary);
    this.finder = new AddedTokenFinder(added, normalize);
    this.addedIds = new Set(added.map(({ id }) => id));
    this.addedByContent = new Map(added.map(({ content, id }) => [content, id]));
    const special = added.filter((token) => token.special).map(({ content }) => content);
    this.specialTokens = new Set([...special, ...furtherSpecialTokens]);
    const tokens = tokensById(this.model);
    for (const { id, content } of added) tokens.set(id, content);
    this.tokens = tokens;
    this.written = new Map(
      added.filter((token) => token.normalized).map(({ id, content }) => [id, normalize(content)]),
    );
    this.vocabSize = [...tokens.keys()].reduce((a, b) => Math.max(a, b), -1) + 1;
  }

  encode(text: string, options: { readonly addSpecialTokens: boolean }): Encoded {
    const ids: number[] = [];
    let dropped: string | undefined;
    // Half a surrogate pair is no text in UTF-8, and no Rust string has one.
    for (const section of this.finder.sections(text.replaceAll(/\p{Surrogate}/gu, '\uFFFD'))) {
      if (typeof section === 'number') ids.push(section);
      else {
        for (const word of this.preTokenize([section])) {
          const without = word.text === '' ? undefined : this.model.tokenize(word.text, ids);
          dropped ??= without;
        }
      }
    }
    return { ids: options.addSpecialTokens ? this.postProcess(ids) : ids, dropped };
  }

  /**
   * Ids that the tokenizer does not have add nothing. We differ from tokenizers 0.23 in one case: a special token that is
   * looked for normalized is skipped too, although it is written in another spelling than its name.
   */
  decode(ids: readonly number[], options: { readonly skipSpecialTokens: boolean }): string {
    const tokens: string[] = [];
    for (const id of ids) {
      const token = this.tokens.get(id);
      if (token === undefined) continue;
      if (options.skipSpecialTokens && this.specialTokens.has(token)) continue;
      tokens.push(this.written.get(id) ?? token);
    }
    return this.decodeTokens(tokens).join('');
  }

  tokenToId(token: string): number | undefined {
    return this.addedByContent.get(token) ?? this.model.vocabulary.get(token);
  }

  idToToken(id: number): string | undefined {
    return this.tokens.get(id);
  }
}
