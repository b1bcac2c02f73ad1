/** A tokenizer over the files of its folder: tokenizer.json, its configuration, its chat template. Knows no tensors. */
import { CheckpointError, DataError, ValueRangeError } from '../errors/index.js';
import { byteOfToken } from './byteFallback.js';
import { bytesOfToken, readableBytes } from './byteLevel.js';
import { ChatTemplate } from './chatTemplate.js';
import { cleanUpSpaces } from './decoders.js';
import { TokenizerEngine } from './engine.js';
import {
  isJsonObject,
  writeTokenizerFiles,
  type JsonObject,
  type TokenizerFiles,
} from './files.js';
import type {
  ChatMessage,
  ChatTemplateOptions,
  DecodeOptions,
  EncodeOptions,
  TextSpan,
  Tokenizer,
} from './tokenizer.js';

/** The tokenizer of a `tokenizer.json` and the files beside it. */
export class JsonTokenizer implements Tokenizer {
  readonly source: string;
  readonly vocabSize: number;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly padTokenId: number | undefined;

  private readonly files: TokenizerFiles;
  private readonly engine: TokenizerEngine;
  private readonly chatTemplate: ChatTemplate | undefined;
  /** Whether tokens are bytes spelled by the byte-level table. */
  private readonly isByteLevel: boolean;
  /** Whether a character outside the vocabulary would be dropped without a trace. */
  private readonly dropsUnknown: boolean;
  private readonly cleansSpaces: boolean;

  /** @throws CheckpointError if the files hold a tokenizer of an unknown kind or name a token that does not exist */
  constructor(files: TokenizerFiles) {
    this.files = files;
    this.source = files.source;
    this.engine = openEngine(files);
    this.vocabSize = this.engine.vocabSize;

    this.bosTokenId = this.specialId('bos_token');
    this.eosTokenId = this.specialId('eos_token');
    this.padTokenId = this.specialId('pad_token') ?? this.eosTokenId;
    this.chatTemplate =
      files.chatTemplate === undefined
        ? undefined
        : new ChatTemplate(files.chatTemplate, files.source, files.specialTokens);

    const { decoder, model } = files.tokenizer;
    const isBpe = isJsonObject(model) && isJsonObject(model['vocab']) && 'merges' in model;
    this.isByteLevel = hasComponent(decoder, 'ByteLevel');
    this.dropsUnknown =
      isBpe &&
      !this.isByteLevel &&
      model['byte_fallback'] !== true &&
      typeof model['unk_token'] !== 'string';
    // As transformers 5: cleaning up spaces corrupts the text of BPE tokenizers, so their setting is ignored.
    this.cleansSpaces = !isBpe && files.config['clean_up_tokenization_spaces'] === true;
  }

  get hasChatTemplate(): boolean {
    return this.chatTemplate !== undefined;
  }

  encode(text: string, options: EncodeOptions = {}): number[] {
    if (text === '' && options.addSpecialTokens === false) return [];
    const { ids, dropped } = this.engine.encode(text, {
      addSpecialTokens: options.addSpecialTokens ?? true,
    });
    if (this.dropsUnknown && dropped !== undefined) this.refuseCharacter(dropped, text);
    const bos = this.bosTokenId;
    const addsBos = options.addSpecialTokens !== false && bos !== undefined && ids[0] === bos;
    // The text itself started with BOS (a rendered chat, say) and the post-processor added another.
    return addsBos && ids[1] === bos && text.startsWith(this.tokenOf(bos)) ? ids.slice(1) : ids;
  }

  decode(ids: readonly number[], options: DecodeOptions = {}): string {
    for (const id of ids) {
      if (!Number.isInteger(id) || id < 0) {
        throw new ValueRangeError(
          `Tokenizer.decode: expected token ids that are non-negative integers, received ${id}.`,
        );
      }
    }
    const text = this.engine.decode(ids, { skipSpecialTokens: options.skipSpecialTokens ?? false });
    return this.cleansSpaces ? cleanUpSpaces(text) : text;
  }

  applyChatTemplate(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    return this.requireChatTemplate().render(messages, options);
  }

  assistantSpans(
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions = {},
  ): readonly TextSpan[] | undefined {
    return this.requireChatTemplate().assistantSpans(messages, options);
  }

  private requireChatTemplate(): ChatTemplate {
    if (this.chatTemplate === undefined) {
      throw new CheckpointError(
        `applyChatTemplate: expected a chat template in ${this.source}, but the folder has none.`,
        {
          hint: 'Use plain text prompts, or put a chat_template.jinja into that folder (base models have none).',
        },
      );
    }
    return this.chatTemplate;
  }

  encodeChat(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): number[] {
    const ids = this.encode(this.applyChatTemplate(messages, options), { addSpecialTokens: false });
    const bos = this.bosTokenId;
    if (bos !== undefined && ids[0] === bos && ids[1] === bos) {
      throw new CheckpointError(
        `encodeChat: expected at most one BOS token at the start, but the chat template of ${this.source} writes ${this.tokenOf(bos)} twice.`,
        { hint: 'Remove one of them from the template, or from the first message.' },
      );
    }
    return ids;
  }

  tokenText(id: number): string {
    const token = this.engine.idToToken(id);
    if (token === undefined) {
      throw new ValueRangeError(
        `Tokenizer.tokenText: expected an id of the vocabulary (below ${this.vocabSize}), received ${id}.`,
      );
    }
    if (this.engine.addedIds.has(id)) return token;
    if (this.isByteLevel) {
      const bytes = bytesOfToken(token);
      return bytes === undefined ? token : readableBytes(bytes);
    }
    const byte = byteOfToken(token);
    if (byte !== undefined) return readableBytes(Uint8Array.of(byte));
    return token.replaceAll('▁', ' ');
  }

  tokenToId(token: string): number | undefined {
    return this.engine.tokenToId(token);
  }

  async save(folder: string): Promise<void> {
    await writeTokenizerFiles(folder, this.files.contents);
  }

  private tokenOf(id: number): string {
    return this.engine.idToToken(id) ?? '';
  }

  private specialId(role: string): number | undefined {
    const token = this.files.specialTokens.get(role);
    if (token === undefined) return undefined;
    const id = this.engine.tokenToId(token);
    if (id === undefined) {
      throw new CheckpointError(
        `loadTokenizer: expected the ${role} ${JSON.stringify(token)} of ${this.source} to be in its vocabulary, but it is not.`,
        {
          hint: 'tokenizer.json and tokenizer_config.json do not belong together. Download both again.',
        },
      );
    }
    return id;
  }

  private refuseCharacter(character: string, text: string): never {
    throw new DataError(
      `Tokenizer.encode: expected text made of the vocabulary's characters, but ${this.source} has no token for ${JSON.stringify(character)} in ${JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text)}.`,
      { hint: 'Change the text, or use a tokenizer that knows this character.' },
    );
  }
}

function openEngine(files: TokenizerFiles): TokenizerEngine {
  try {
    return new TokenizerEngine(files.tokenizer, additionalSpecialTokens(files.config));
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    throw new CheckpointError(
      `loadTokenizer: expected tokenizer.json of ${files.source} to hold a tokenizer of a known kind, but ${error.message}.`,
      { hint: 'docs/tokenizers.md lists what is read.', cause: error },
    );
  }
}

function additionalSpecialTokens(config: JsonObject): string[] {
  const listed = config['additional_special_tokens'];
  if (!Array.isArray(listed)) return [];
  return listed
    .map((token: unknown) => (isJsonObject(token) ? token['content'] : token))
    .filter((token) => typeof token === 'string');
}

/** Whether a component of tokenizer.json is, or contains in a Sequence, one of the given type. */
function hasComponent(component: unknown, type: string): boolean {
  if (!isJsonObject(component)) return false;
  if (component['type'] === type) return true;
  return Object.values(component).some(
    (value) => Array.isArray(value) && value.some((inner) => hasComponent(inner, type)),
  );
}
