/** Parts of tokenizer.json by hand: each branch that the golden tokenizers do not reach, and every refusal. */
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { TokenizerEngine } from './engine.js';
import type { JsonObject } from './files.js';
import { loadTokenizer } from './index.js';
import { createNormalizer } from './normalizers.js';
import { PairTable } from './pairTable.js';
import { cut, type Behavior } from './pattern.js';
import { createPreTokenizer } from './preTokenizers.js';

const VOCAB = { a: 0, b: 1, c: 2, ab: 3, bc: 4, abc: 5 };
const BPE = { type: 'BPE', vocab: VOCAB, merges: ['b c', ['a', 'b'], ['a', 'bc']] };

function ids(tokenizer: JsonObject, text: string, addSpecialTokens = true): number[] {
  return new TokenizerEngine(tokenizer).encode(text, { addSpecialTokens }).ids;
}
function words(preTokenizer: JsonObject, text: string): string[] {
  return createPreTokenizer(preTokenizer)([{ text, first: true }]).map((piece) => piece.text);
}

describe('cut', () => {
  // Two matches in a row, one alone, one at the end.
  const pieces = (behavior: Behavior, invert = false) =>
    cut('--a-b-', /-/g, behavior, invert).map(({ start, end }) => '--a-b-'.slice(start, end));

  test('does what each behaviour says, by hand', () => {
    assert.deepEqual(pieces('Isolated'), ['-', '-', 'a', '-', 'b', '-']);
    assert.deepEqual(pieces('Removed'), ['a', 'b']);
    assert.deepEqual(pieces('Removed', true), ['-', '-', '-', '-']);
    assert.deepEqual(pieces('Contiguous'), ['--', 'a', '-', 'b', '-']);
    assert.deepEqual(pieces('MergedWithPrevious'), ['-', '-', 'a-', 'b-']);
    assert.deepEqual(pieces('MergedWithNext'), ['-', '-a', '-b', '-']);
  });
});

describe('PairTable', () => {
  test('keeps what a Map keeps, through growth and replacement', () => {
    const table = new PairTable();
    const map = new Map<string, number>();
    for (let index = 0; index < 3000; index++) {
      const [first, second] = [(index * 7919) % 500, (index * index) % 601];
      table.set(first, second, index);
      map.set(`${first} ${second}`, index);
    }
    for (let first = 0; first < 500; first++) {
      for (let second = 0; second < 601; second += 7) {
        assert.equal(table.get(first, second), map.get(`${first} ${second}`) ?? -1);
      }
    }
  });
});

describe('BPE', () => {
  test('joins the pair that was learned first, whichever stands first', () => {
    // b c comes before a b, so that abc is a + bc and then abc; ab stays where no c follows.
    assert.deepEqual(ids({ model: BPE }, 'abcab'), [5, 3]);
    assert.deepEqual(ids({ model: { ...BPE, merges: ['a b', 'b c'] } }, 'abc'), [3, 2]);
  });

  test('ignore_merges takes a whole word from the vocabulary though no merge leads to it', () => {
    const model = { ...BPE, merges: [] };
    assert.deepEqual(ids({ model }, 'abc'), [0, 1, 2]);
    assert.deepEqual(ids({ model: { ...model, ignore_merges: true } }, 'abc'), [5]);
  });

  test('writes unknown characters one by one, or as one when they are fused', () => {
    const model = { ...BPE, vocab: { ...VOCAB, '?': 6 }, unk_token: '?' };
    assert.deepEqual(ids({ model }, 'xya'), [6, 6, 0]);
    assert.deepEqual(ids({ model: { ...model, fuse_unk: true } }, 'xyax'), [6, 0, 6]);
  });

  test('falls back to bytes only where all of them are tokens', () => {
    const vocab = { ...VOCAB, '<0xC3>': 6, '<0xA9>': 7, '?': 8 };
    const model = { ...BPE, vocab, byte_fallback: true, unk_token: '?' };
    assert.deepEqual(ids({ model }, 'éèa'), [6, 7, 8, 0]);
  });

  test('tells which character it had to leave out, and does so again for the same word', () => {
    const engine = new TokenizerEngine({ model: BPE });
    for (let round = 0; round < 2; round++) {
      assert.deepEqual(engine.encode('axby', { addSpecialTokens: true }), {
        ids: [3],
        dropped: 'x',
      });
    }
  });

  test('a word of a million letters takes seconds', () => {
    const start = performance.now();
    assert.equal(ids({ model: BPE }, 'abc'.repeat(333_333)).length, 333_333);
    const seconds = (performance.now() - start) / 1000;
    assert.ok(seconds < 60, `took ${seconds} s; a quadratic pass would take hours`);
  });
});

describe('Unigram', () => {
  const vocab = [
    ['?', 0],
    ['a', -1],
    ['b', -1],
    ['ab', -2],
    ['<0xC3>', -9],
    ['<0xA9>', -9],
  ];

  test('takes the best sum, and of equal ones the longer last token', () => {
    // ab scores −2 as one token and as two: the token that was offered first, from further left, stays.
    assert.deepEqual(ids({ model: { type: 'Unigram', vocab, unk_id: 0 } }, 'abb'), [3, 2]);
  });

  test('an unknown character costs ten more than the worst token', () => {
    const model = (score: number) => ({
      type: 'Unigram',
      unk_id: 0,
      vocab: [
        ['?', 0],
        ['ab', -5],
        ['b', score],
      ],
    });
    // a alone is unknown: −5 − 10 + 9.5 = −5.5 is worse than −5, with 10.5 it is −4.5 and better.
    assert.deepEqual(ids({ model: model(9.5) }, 'ab'), [1]);
    assert.deepEqual(ids({ model: model(10.5) }, 'ab'), [0, 2]);
  });

  test('joins unknown neighbours, or writes their bytes', () => {
    const model = { type: 'Unigram', vocab, unk_id: 0 };
    assert.deepEqual(ids({ model }, 'ééa'), [0, 1]);
    assert.deepEqual(ids({ model: { ...model, byte_fallback: true } }, 'éa'), [4, 5, 1]);
  });

  test('without an unknown token, refuses', () => {
    assert.throws(() => ids({ model: { type: 'Unigram', vocab } }, 'aé'), {
      code: 'E_DATA',
      message:
        'Tokenizer.encode: expected text that the vocabulary can express, but it has neither "é" nor an unknown token.',
    });
  });
});

describe('WordPiece and WordLevel', () => {
  const vocab = { '[UNK]': 0, a: 1, '##a': 2, ab: 3 };
  test('WordPiece takes the longest start; a word that does not come out is unknown as a whole', () => {
    const model = { type: 'WordPiece', vocab, unk_token: '[UNK]', max_input_chars_per_word: 4 };
    assert.deepEqual(ids({ model }, 'abaa'), [3, 2, 2]);
    assert.deepEqual(ids({ model }, 'abb'), [0]);
    assert.deepEqual(ids({ model }, 'aaaaa'), [0]);
  });

  test('a model without a type is told by its fields', () => {
    assert.deepEqual(ids({ model: { vocab, merges: [], unk_token: '[UNK]' } }, 'aa'), [1, 1]);
    assert.deepEqual(ids({ model: { vocab, continuing_subword_prefix: '##' } }, 'aa'), [1, 2]);
    assert.deepEqual(ids({ model: { vocab, unk_token: '[UNK]' } }, 'ab'), [3]);
  });

  test('an unknown word without an unknown token is refused', () => {
    assert.throws(() => ids({ model: { type: 'WordLevel', vocab } }, 'x'), {
      code: 'E_DATA',
      message:
        'Tokenizer.encode: expected text that the vocabulary can express, but it has neither "x" nor the unknown token "<unk>".',
    });
  });
});

describe('added tokens', () => {
  const token = (content: string, id: number, options: object = {}) => ({
    content,
    id,
    normalized: false,
    ...options,
  });
  const engine = (...added: object[]) =>
    new TokenizerEngine({
      model: { ...BPE, vocab: { ...VOCAB, ' ': 6 } },
      normalizer: { type: 'Lowercase' },
      added_tokens: added,
    });
  const found = (text: string, ...added: object[]) =>
    engine(...added).encode(text, { addSpecialTokens: true }).ids;

  test('the longest of those that start leftmost is found', () => {
    assert.deepEqual(found('xyzy', token('y', 10), token('xyz', 11), token('xy', 12)), [11, 10]);
  });

  test('one that the vocabulary has keeps its id there', () => {
    assert.deepEqual(found('ab', token('b', 10)), [0, 1]);
  });

  test('single_word: not where a letter touches, on either side, beyond the first plane too', () => {
    const added = token('w', 10, { single_word: true });
    assert.deepEqual(found('w aw wa w', added), [10, 6, 0, 6, 0, 6, 10]);
    assert.deepEqual(found('𝒜w', added), []);
  });

  test('lstrip and rstrip take the white space along, but not what another token took', () => {
    const left = token('<', 10, { lstrip: true });
    const right = token('>', 11, { rstrip: true });
    assert.deepEqual(found('a  <b>  a', left, right), [0, 10, 1, 11, 0]);
    assert.deepEqual(found('>  <', left, right), [11, 10]);
  });

  test('one that is normalized is found in the normalized text and written normalized', () => {
    const added = token('XY', 10, { normalized: true });
    const tokenizer = engine(added, token('Z', 12));
    assert.deepEqual(tokenizer.encode('xyZz', { addSpecialTokens: true }), {
      ids: [10, 12],
      dropped: 'z',
    });
    assert.equal(tokenizer.decode([10], { skipSpecialTokens: false }), 'xy');
    assert.equal(tokenizer.tokenToId('XY'), 10);
  });

  test('of two with one normalized form the first is found, or the special one', () => {
    const [first, second] = [{ normalized: true }, { normalized: true, special: true }];
    assert.deepEqual(found('xy', token('XY', 10, first), token('xY', 11, first)), [10]);
    assert.deepEqual(found('xy', token('XY', 10, first), token('xY', 11, second)), [11]);
  });

  test('a special one is skipped although it is written in another spelling', () => {
    const tokenizer = engine(token('XY', 10, { normalized: true, special: true }));
    assert.equal(tokenizer.decode([0, 10], { skipSpecialTokens: true }), 'a');
    assert.equal(tokenizer.decode([0, 10], { skipSpecialTokens: false }), 'a xy');
  });
});

describe('normalizers and pre-tokenizers', () => {
  test('lower case is taken character by character: no final sigma', () => {
    assert.equal(createNormalizer({ type: 'Lowercase' })('ΟΔΟΣ İ'), 'οδοσ i̇');
  });

  test('(?i:…) takes the long s and the sign of the kelvin for s and k, outside it they are not', () => {
    const split = (source: string) =>
      words(
        { type: 'Split', pattern: { Regex: source }, behavior: 'Removed', invert: true },
        "'ſ'S \u212A k",
      );
    assert.deepEqual(split("(?i:'s)|(?i:k)"), ["'ſ", "'S", '\u212A', 'k']);
    assert.deepEqual(split("'[sS]|[kK]"), ["'S", 'k']);
  });

  test('half a surrogate pair is U+FFFD', () => {
    const model = { ...BPE, vocab: { '\uFFFD': 9 }, merges: [] };
    assert.deepEqual(ids({ model }, 'x\uD83Dx'), [9]);
  });

  test('a replacement is taken as it stands', () => {
    const normalizer = { type: 'Replace', pattern: { String: 'a.' }, content: '$&' };
    assert.equal(createNormalizer(normalizer)('aba.'), 'ab$&');
  });

  test('Strip takes the sides that it is told', () => {
    const strip = (left: boolean, right: boolean) =>
      createNormalizer({ type: 'Strip', strip_left: left, strip_right: right })('\u0085 a\u3000');
    assert.deepEqual([strip(true, false), strip(false, true)], ['a\u3000', '\u0085 a']);
  });

  test('Metaspace prepends to the first piece only, or to each, or never', () => {
    const pieces = (scheme: string) =>
      words(
        {
          type: 'Sequence',
          pretokenizers: [
            { type: 'Split', pattern: { String: ',' }, behavior: 'Isolated', invert: false },
            { type: 'Metaspace', replacement: '_', prepend_scheme: scheme, split: true },
          ],
        },
        'a b,c',
      );
    assert.deepEqual(pieces('first'), ['_a', '_b', ',', 'c']);
    assert.deepEqual(pieces('always'), ['_a', '_b', '_,', '_c']);
    assert.deepEqual(pieces('never'), ['a', '_b', ',', 'c']);
  });

  test('ByteLevel and FixedLength', () => {
    const byteLevel = { type: 'ByteLevel', add_prefix_space: true, use_regex: true };
    assert.deepEqual(words(byteLevel, "it's 42é"), ['Ġit', "'s", 'Ġ42', 'Ã©']);
    assert.deepEqual(words({ ...byteLevel, use_regex: false }, ' a b'), ['ĠaĠb']);
    assert.deepEqual(words({ type: 'FixedLength', length: 2 }, 'ab🙂c'), ['ab', '🙂c']);
  });
});

describe('post-processors and decoders', () => {
  test('BERT and RoBERTa put their tokens around the text, and only when asked', () => {
    for (const type of ['BertProcessing', 'RobertaProcessing']) {
      const tokenizer = { model: BPE, post_processor: { type, cls: ['C', 8], sep: ['S', 9] } };
      assert.deepEqual(ids(tokenizer, 'a'), [8, 0, 9]);
      assert.deepEqual(ids(tokenizer, 'a', false), [0]);
    }
  });

  test('Strip takes at most so many from either side', () => {
    const decoder = { type: 'Strip', content: 'a', start: 1, stop: 2 };
    const engine = new TokenizerEngine({
      model: { type: 'WordLevel', vocab: { aabaaa: 0, a: 1 } },
      decoder,
    });
    assert.equal(engine.decode([0], { skipSpecialTokens: false }), 'aba');
    assert.equal(engine.decode([1], { skipSpecialTokens: false }), '');
  });

  test('Metaspace takes the spaces of the first token away, unless none were put there', () => {
    const decoded = (scheme: string) =>
      new TokenizerEngine({
        model: { type: 'WordLevel', vocab: { __a: 0 } },
        decoder: { type: 'Metaspace', replacement: '_', prepend_scheme: scheme },
      }).decode([0, 0], { skipSpecialTokens: false });
    assert.deepEqual([decoded('first'), decoded('never')], ['a  a', '  a  a']);
  });

  test('truncation and padding of the file are left aside', () => {
    const padding = { strategy: { Fixed: 8 }, pad_id: 9 };
    assert.deepEqual(ids({ model: BPE, truncation: { max_length: 1 }, padding }, 'ac'), [0, 2]);
  });
});

describe('loadTokenizer rejects', () => {
  const split = { type: 'Split', behavior: 'Isolated', invert: false };
  const single = (item: object) => ({ type: 'TemplateProcessing', single: [item] });
  const faults: [string, JsonObject, string][] = [
    [
      'a model of an unknown type',
      { model: { type: 'Oracle', vocab: {} } },
      'its model is of the unknown type "Oracle"',
    ],
    [
      'a decoder of an unknown type',
      { decoder: { type: 'CTC' } },
      'its decoder is of the unknown type "CTC"',
    ],
    [
      'a normalizer of an unknown type',
      { normalizer: { type: 'Sequence', normalizers: [{ type: 'NFX' }] } },
      'its normalizer is of the unknown type "NFX"',
    ],
    [
      'a pre-tokenizer of an unknown type',
      { pre_tokenizer: { type: 'UnicodeScripts' } },
      'its pre_tokenizer is of the unknown type "UnicodeScripts"',
    ],
    [
      'a post-processor of an unknown type',
      { post_processor: { type: 'Magic' } },
      'its post_processor is of the unknown type "Magic"',
    ],
    [
      'a part that is no object',
      { decoder: 'ByteLevel' },
      'its decoder is "ByteLevel" instead of an object with a type',
    ],
    [
      'a field of the wrong type',
      { model: { ...BPE, byte_fallback: 1 } },
      '"byte_fallback" of its model BPE is 1 instead of true or false',
    ],
    [
      'a missing field',
      { normalizer: { type: 'Prepend' } },
      '"prepend" of its normalizer Prepend is missing instead of a string',
    ],
    [
      'an optional string that is a number',
      { model: { ...BPE, unk_token: 3 } },
      '"unk_token" of its model BPE is 3 instead of a string or null',
    ],
    [
      'an id that is negative',
      { model: { ...BPE, vocab: { a: -1 } } },
      'the id of "a" in its model BPE is -1 instead of a whole number that is not negative',
    ],
    [
      'an empty vocabulary',
      { model: { ...BPE, vocab: {}, merges: [] } },
      'the vocabulary of its model is empty',
    ],
    [
      'a merge of three tokens',
      { model: { ...BPE, merges: ['a b c'] } },
      'a merge of its model BPE is "a b c" instead of two tokens',
    ],
    [
      'a merge outside the vocabulary',
      { model: { ...BPE, merges: ['a c'] } },
      'the merge "a c" of its model BPE has the token "ac", which the vocabulary lacks',
    ],
    [
      'no list of merges',
      { model: { ...BPE, merges: {} } },
      '"merges" of its model BPE is {} instead of a list',
    ],
    [
      'a Unigram entry without score',
      { model: { type: 'Unigram', vocab: [['a']] } },
      'entry 0 of the vocabulary of its model Unigram is ["a"] instead of a token and its score',
    ],
    [
      'an unk_id outside the vocabulary',
      { model: { type: 'Unigram', vocab: [['a', 0]], unk_id: 1 } },
      '"unk_id" of its model Unigram is 1 instead of an id of its vocabulary',
    ],
    [
      'a pattern of no known form',
      { pre_tokenizer: { ...split, pattern: 'a' } },
      '"pattern" of its pre_tokenizer Split is "a" instead of { "String": … } or { "Regex": … }',
    ],
    [
      'a regular expression that is none',
      { pre_tokenizer: { ...split, pattern: { Regex: '(' } } },
      '"pattern" of its pre_tokenizer Split is {"Regex":"("} instead of a regular expression that JavaScript has too',
    ],
    [
      'an unknown behaviour',
      { pre_tokenizer: { ...split, pattern: { String: 'a' }, behavior: 'Eaten' } },
      '"behavior" of its pre_tokenizer Split is "Eaten" instead of one of Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous',
    ],
    [
      'settings of Metaspace that contradict each other',
      { pre_tokenizer: { type: 'Metaspace', add_prefix_space: false } },
      '"add_prefix_space" of its pre_tokenizer Metaspace is false, which "prepend_scheme" "always" contradicts',
    ],
    [
      'a delimiter of two characters',
      { pre_tokenizer: { type: 'CharDelimiterSplit', delimiter: 'ab' } },
      '"delimiter" of its pre_tokenizer CharDelimiterSplit is "ab" instead of one character',
    ],
    [
      'pieces of no length',
      { pre_tokenizer: { type: 'FixedLength', length: 0 } },
      '"length" of its pre_tokenizer FixedLength is 0 instead of at least 1',
    ],
    [
      'a count that is a fraction',
      { decoder: { type: 'Strip', content: 'a', start: 0.5, stop: 0 } },
      '"start" of its decoder Strip is 0.5 instead of a whole number that is not negative',
    ],
    [
      'a table of SentencePiece that is none',
      { normalizer: { type: 'Precompiled', precompiled_charsmap: 'AAAA' } },
      '"precompiled_charsmap" of its normalizer Precompiled is "AAAA" instead of a table of SentencePiece in base64',
    ],
    [
      'a template with another item',
      { post_processor: single({ Word: 1 }) },
      '"single" of its post_processor TemplateProcessing is [{"Word":1}] instead of a list of SpecialToken and Sequence',
    ],
    [
      'a template with a token that has no ids',
      { post_processor: single({ SpecialToken: { id: 'X' } }) },
      'its post_processor TemplateProcessing has the special token "X" without ids: missing',
    ],
    [
      'an edge token without id',
      { post_processor: { type: 'BertProcessing', cls: ['C'], sep: ['S', 1] } },
      '"cls" of its post_processor BertProcessing is ["C"] instead of a token and its id',
    ],
    [
      'added tokens that are no list',
      { added_tokens: {} },
      'its "added_tokens" are {} instead of a list',
    ],
    [
      'an added token without id',
      { added_tokens: [{ content: 'x' }] },
      'an entry of its "added_tokens" is {"content":"x"} instead of an object with "content" and "id"',
    ],
  ];

  for (const [name, change, reason] of faults) {
    test(name, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'posttrain-tokenizer-'));
      cpSync('test/golden/tokenizers/characters', folder, { recursive: true });
      writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify({ model: BPE, ...change }));
      await assert.rejects(loadTokenizer(folder), {
        code: 'E_CHECKPOINT',
        message: `loadTokenizer: expected tokenizer.json of ${folder} to hold a tokenizer of a known kind, but ${reason}.`,
        hint: 'docs/tokenizers.md lists what is read.',
      });
    });
  }
});
