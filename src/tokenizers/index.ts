/** Text ↔ token ids, chat templates, and making small tokenizers. */
export type {
  ChatContentPart,
  ChatMessage,
  ChatTemplateOptions,
  DecodeOptions,
  EncodeOptions,
  TextSpan,
  Tokenizer,
} from './tokenizer.js';
export { loadTokenizer } from './loadTokenizer.js';
export { createCharacterTokenizer, type CharacterTokenizerOptions } from './characterTokenizer.js';
export { createBpeTokenizer, type BpeTokenizerOptions } from './bpeTokenizer.js';
export { differingToken, type DifferingToken } from './differingToken.js';
