import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createCharacterTokenizer } from '../tokenizers/index.js';
import { markedText, tellExample } from './examplePreview.js';

const tokenizer = createCharacterTokenizer({ characters: 'abcdefgh\n' });
const ids = (text: string): number[] => tokenizer.encode(text);
const signs = { open: '[', close: ']' };
const from =
  (start: number, end = Infinity) =>
  (place: number): boolean =>
    place >= start && place < end;

describe('markedText', () => {
  test('what is trained stands between signs, line ends are shown and special tokens spelled out', () => {
    const all = [...ids('ab\ncd'), tokenizer.eosTokenId ?? -1];
    assert.equal(markedText({ ids: all, isTrained: from(3) }, tokenizer, signs), 'ab↵[cd<eos>]');
    assert.equal(markedText({ ids: all, isTrained: from(0, 1) }, tokenizer, signs), '[a]b↵cd<eos>');
    assert.equal(markedText({ ids: all, isTrained: from(1, 2) }, tokenizer, signs), 'a[b]↵cd<eos>');
    assert.equal(markedText({ ids: all, isTrained: from(9) }, tokenizer, signs), 'ab↵cd<eos>');
  });
  test('control characters are shown and not sent to the terminal', () => {
    const decoder = { decode: () => 'a\u001b[2Jb\rc\u0000\td\u007f\u009be\r\nf' };
    assert.equal(
      markedText({ ids: [0], isTrained: () => false }, decoder, signs),
      'a␛[2Jb␍c␀\td␡\ufffde↵f',
    );
  });
  test('a long example is cut in its middle, its signs still in pairs', () => {
    const long = ids(`a${'b'.repeat(300)}c`);
    const shown = markedText({ ids: long, isTrained: from(100) }, tokenizer, signs);
    assert.equal(
      shown,
      `a${'b'.repeat(99)}[${'b'.repeat(20)}] … 102 tokens … [${'b'.repeat(79)}c]`,
    );
    const exact = ids('b'.repeat(200));
    assert.equal(
      markedText({ ids: exact, isTrained: from(0) }, tokenizer, signs),
      `[${'b'.repeat(200)}]`,
    );
  });
});

describe('tellExample', () => {
  const tell = (isTTY: boolean): string => {
    let written = '';
    const stream = { write: (text: string) => (written += text), isTTY };
    tellExample(stream, tokenizer, { file: 'a.jsonl', line: 3 }, [
      { name: 'chosen', ids: ids('abc'), isTrained: from(2) },
    ]);
    return written;
  };
  test('says which row it is, and marks in signs or in colour', () => {
    assert.equal(
      tell(false),
      'Example (a.jsonl:3, chosen; 3 tokens, trained ones in ⟦ ⟧): ab⟦c⟧\n',
    );
    assert.equal(
      tell(true),
      'Example (a.jsonl:3, chosen; 3 tokens, trained ones in green): ab\u001b[32mc\u001b[0m\n',
    );
  });
});
