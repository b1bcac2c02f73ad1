/** Words to token ids. Knows the models that tokenizer.json has, and keeps what it has worked out. */
import { CheckpointError } from '../errors/index.js';
import { BpeModel, unknownId } from './bpe.js';
import { Component } from './component.js';
import { isJsonObject } from './files.js';
import { UnigramModel } from './unigram.js';

/** What turns a word into ids. */
export interface WordModel {
  readonly vocabulary: ReadonlyMap<string, number>;
  /** Tokens by id where that is not the vocabulary turned round: a Unigram vocabulary may have a token twice. */
  readonly tokens?: readonly string[];
  /** Appends the ids of a word. Returns the first character that was dropped, if one was. */
  tokenize(word: string, ids: number[]): string | undefined;
}

/**
 * The model of a tokenizer.json.
 *
 * @throws CheckpointError if its type is unknown or a field is wrong
 */
export function createModel(value: unknown): WordModel {
  const component = new Component('model', withType(value));
  switch (component.type) {
    case 'BPE':
      return remembering(new BpeModel(component));
    case 'Unigram':
      // No memory: its words are whole texts, which do not come again.
      return new UnigramModel(component);
    case 'WordPiece':
      return remembering(new WordPieceModel(component));
    case 'WordLevel':
      return new WordLevelModel(component);
    default:
      throw component.unknown();
  }
}

/** Old files leave the type out; the fields tell it, as in the Rust library. */
function withType(value: unknown): unknown {
  if (!isJsonObject(value) || value['type'] !== undefined) return value;
  const type =
    'merges' in value
      ? 'BPE'
      : Array.isArray(value['vocab'])
        ? 'Unigram'
        : 'continuing_subword_prefix' in value
          ? 'WordPiece'
          : 'WordLevel';
  return { ...value, type };
}

/** Longer words are worked out each time. */
const LONGEST_REMEMBERED = 256;
const MOST_REMEMBERED = 1 << 16;

/** The same model with a memory of the words that it has seen: few words make up most of a text. */
function remembering(model: WordModel): WordModel {
  let memory = new Map<string, readonly number[]>();
  return {
    vocabulary: model.vocabulary,
    tokenize: (word, ids) => {
      if (word.length > LONGEST_REMEMBERED) return model.tokenize(word, ids);
      let known = memory.get(word);
      if (known === undefined) {
        const fresh: number[] = [];
        const dropped = model.tokenize(word, fresh);
        if (dropped !== undefined) {
          for (const id of fresh) ids.push(id);
          return dropped;
        }
        if (memory.size >= MOST_REMEMBERED) memory = new Map();
        memory.set(word, fresh);
        known = fresh;
      }
      for (const id of known) ids.push(id);
      return undefined;
    },
  };
}

/**
 * WordPiece: the longest token that the word starts with, then the longest continuation, and so on; the unknown token
 * for the whole word where that fails.
 *
 * Source: Devlin et al. 2019, arXiv:1810.04805, tokenization.py of its code.
 */
class WordPieceModel implements WordModel {
  readonly vocabulary: Map<string, number>;
  private readonly prefix: string;
  private readonly unknownToken: string;
  private readonly longestWord: number;

  constructor(component: Component) {
    this.vocabulary = component.vocabulary('vocab');
    this.prefix = component.string('continuing_subword_prefix', '##');
    this.unknownToken = component.string('unk_token', '[UNK]');
    this.longestWord = component.count('max_input_chars_per_word', 100);
  }

  tokenize(word: string, ids: number[]): undefined {
    const pieces = this.pieces(word) ?? [unknownId(this.vocabulary, this.unknownToken, word)];
    for (const id of pieces) ids.push(id);
    return undefined;
  }

  private pieces(word: string): number[] | undefined {
    const characters = Array.from(word);
    if (characters.length > this.longestWord) return undefined;
    const pieces: number[] = [];
    for (let start = 0; start < characters.length;) {
      const prefix = start === 0 ? '' : this.prefix;
      let end = characters.length;
      let id: number | undefined;
      for (; end > start && id === undefined; end--) {
        id = this.vocabulary.get(prefix + characters.slice(start, end).join(''));
        if (id !== undefined) break;
      }
      if (id === undefined) return undefined;
      pieces.push(id);
      start = end;
    }
    return pieces;
  }
}

/** Every word a token. */
class WordLevelModel implements WordModel {
  readonly vocabulary: Map<string, number>;
  private readonly unknownToken: string;

  constructor(component: Component) {
    this.vocabulary = component.vocabulary('vocab');
    this.unknownToken = component.string('unk_token', '<unk>');
  }

  tokenize(word: string, ids: number[]): undefined {
    ids.push(this.vocabulary.get(word) ?? unknownId(this.vocabulary, this.unknownToken, word));
    return undefined;
  }
}

/** The tokens of a model by id. */
export function tokensById(model: WordModel): Map<number, string> {
  const tokens = new Map<number, string>(model.tokens?.entries());
  if (model.tokens === undefined) for (const [token, id] of model.vocabulary) tokens.set(id, token);
  if (tokens.size === 0) throw new CheckpointError('the vocabulary of its model is empty');
  return tokens;
}
