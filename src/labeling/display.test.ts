import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Comparison } from './comparison.js';
import { comparisonLines, visibleText, wrapText } from './display.js';

const FAMILY = '👨‍👩‍👧'; // one emoji of five code points, two columns wide
const ACCENTED = 'e\u0301'; // one letter of two code points, one column wide

/** Columns by a table of this test's characters, independent of the library: wide ones are named. */
function columns(text: string): number {
  const wide = text.match(/[一-鿿가-힣ぁ-ヿ！]/gu)?.length ?? 0;
  const families = text.split(FAMILY).length - 1;
  const flags = text.match(/🇩🇪/gu)?.length ?? 0;
  const rest = text.replaceAll(FAMILY, '').replaceAll('🇩🇪', '').replaceAll('\u0301', '');
  return Array.from(rest).length + wide + 2 * families + 2 * flags;
}

function comparison(texts: readonly string[], overrides: Partial<Comparison> = {}): Comparison {
  return {
    row: 2,
    completions: texts.map((text) => ({ text, finishReason: 'eos', tokens: 5, copies: 1 })),
    order: [...texts.keys()],
    empty: 0,
    ...overrides,
  };
}

const heading = { place: '3 of 9', source: 'prompts.jsonl:3' };

describe('wrapText', () => {
  test('breaks between words, and keeps lines and indentation', () => {
    assert.deepEqual(wrapText('one two three', 7), ['one two', 'three']);
    assert.deepEqual(wrapText('a\n\n  b c', 5), ['a', '', '  b c']);
    assert.deepEqual(wrapText('', 5), ['']);
    assert.deepEqual(wrapText('a b ', 3), ['a b']);
  });
  test('the break stands for the blanks around it', () => {
    assert.deepEqual(wrapText('aaaa    bbbb', 5), ['aaaa', 'bbbb']);
    assert.deepEqual(wrapText('aaaa     ', 5), ['aaaa']);
  });
  test('cuts words that are longer than a line', () => {
    assert.deepEqual(wrapText('abcdefgh', 3), ['abc', 'def', 'gh']);
    assert.deepEqual(wrapText('x abcdefgh y', 4), ['x ab', 'cdef', 'gh y']);
  });
  test('counts Chinese, Japanese and Korean characters as two columns', () => {
    assert.deepEqual(wrapText('日本語한국어', 5), ['日本', '語한', '국어']);
    assert.deepEqual(wrapText('ab日本', 4), ['ab日', '本']);
  });
  test('cuts neither emoji nor accented letters apart', () => {
    assert.deepEqual(wrapText(FAMILY.repeat(3), 4), [FAMILY + FAMILY, FAMILY]);
    assert.deepEqual(wrapText(FAMILY.repeat(2), 3), [FAMILY, FAMILY]);
    assert.deepEqual(wrapText(ACCENTED.repeat(4), 3), [ACCENTED.repeat(3), ACCENTED]);
    assert.deepEqual(wrapText('🇩🇪🇩🇪', 2), ['🇩🇪', '🇩🇪']);
  });
  test('ends although a character is wider than the line', () => {
    assert.deepEqual(wrapText('日本', 1), ['日', '本']);
  });
  test('no line is wider than asked for, and no sign is lost', () => {
    const text = `The cat 猫 saw ${FAMILY} and ${ACCENTED}${ACCENTED} 日本語の文章！ 한국어도 averyveryverylongword 🇩🇪`;
    for (let width = 2; width <= 80; width++) {
      const lines = wrapText(text, width);
      for (const line of lines) assert.ok(columns(line) <= width, `${width}: ${line}`);
      assert.equal(lines.join('').replace(/\s/g, ''), text.replace(/\s/g, ''));
    }
  });
});

describe('visibleText', () => {
  test('no control character reaches the terminal', () => {
    assert.equal(visibleText('a\u001b[31mred\u0007\u0000\u007f'), 'a␛[31mred␇␀␡');
    assert.equal(visibleText('\u009b31m\u0085'), '\\u{9b}31m\\u{85}');
  });
  test('the direction of writing cannot be changed, and halves of characters are named', () => {
    assert.equal(visibleText('a\u202eb\u2067c\u2028'), 'a\\u{202e}b\\u{2067}c\\u{2028}');
    assert.equal(visibleText('\ud83d!'), '\\u{d83d}!');
    assert.equal(visibleText('😀'), '😀');
  });
  test('tabs are blanks, and line ends are line ends', () => {
    assert.equal(visibleText('a\tb\r\nc\rd\ne'), 'a    b\nc␍d\ne');
  });
});

describe('comparisonLines', () => {
  test('stands side by side where the terminal is wide enough', () => {
    const lines = comparisonLines('1+1=', comparison(['two', '3']), heading, 80);
    const rule = (label: string, width: number) => label + '─'.repeat(width - label.length);
    assert.deepEqual(lines, [
      '',
      rule('── 3 of 9 · prompts.jsonl:3 ', 80),
      '1+1=',
      '',
      `${rule('── 1 ', 38)}   ${rule('── 2 ', 38)}`,
      `two${' '.repeat(38)}3`,
      '',
    ]);
  });
  test('stands below each other where it is not', () => {
    const lines = comparisonLines('p', comparison(['a', 'b']), heading, 74);
    assert.deepEqual(
      lines.slice(4).map((line) => line.replace(/─{3,}/, '')),
      ['── 1 ', 'a', '', '── 2 ', 'b', ''],
    );
    assert.equal(comparisonLines('p', comparison(['a', 'b']), heading, 75)[4]?.length, 75);
  });
  test('completions that do not fit beside each other are shared out evenly', () => {
    const heads = (count: number, width: number) =>
      comparisonLines('p', comparison('abcdefghi'.slice(0, count).split('')), heading, width)
        .slice(4)
        .filter((line) => /^── \d/.test(line))
        .map((line) => line.match(/\d/g)?.join(''));
    assert.deepEqual(heads(4, 80), ['12', '34']);
    assert.deepEqual(heads(4, 120), ['12', '34'], 'three would fit, but leave one alone');
    assert.deepEqual(heads(4, 153), ['1234']);
    assert.deepEqual(heads(5, 120), ['123', '45']);
    assert.deepEqual(heads(9, 120), ['123', '456', '789']);
  });
  test('columns start at the same place whatever is beside them', () => {
    const texts = ['日本語', FAMILY, `${ACCENTED}x`, 'plain'];
    for (const text of texts) {
      const line = comparisonLines('p', comparison([text, '|']), heading, 80)[5] ?? '';
      assert.equal(columns(line.slice(0, line.indexOf('|'))), 41, text);
    }
  });
  test('shows what the order says, with what is to be known of it', () => {
    const given = comparison(['a', 'b', 'c'], { order: [2, 0, 1] });
    const completions = [
      { text: 'a', finishReason: 'length' as const, tokens: 7, copies: 1 },
      { text: 'b', finishReason: 'eos' as const, tokens: 2, copies: 3 },
      { text: 'c', finishReason: 'stop' as const, tokens: 2, copies: 1 },
    ];
    const lines = comparisonLines('p', { ...given, completions }, heading, 40);
    assert.deepEqual(
      lines.slice(4).map((line) => line.replace(/ ?─{3,}/, '')),
      [
        '── 1',
        'c',
        '',
        '── 2 · cut off after 7 tokens',
        'a',
        '',
        '── 3 · sampled 3 times',
        'b',
        '',
      ],
    );
  });
  test('a conversation shows who says what', () => {
    const prompt = [
      { role: 'system', content: 'Be\u001bbrief.' },
      { role: 'user', content: [{ type: 'text', text: 'Hi' }] },
      { role: 'assistant', tool_calls: [1] },
    ];
    assert.deepEqual(comparisonLines(prompt, comparison(['a', 'b']), heading, 60).slice(2, 5), [
      'system: Be␛brief.',
      'user: [{"type":"text","text":"Hi"}]',
      'assistant: {"tool_calls":[1]}',
    ]);
  });
  test('no line is wider than the terminal, however narrow', () => {
    const texts = ['日本語の文章がここにあります', 'averyveryverylongwordwithoutblanks'];
    for (const width of [10, 20, 40, 79, 200])
      for (const line of comparisonLines('日本 prompt', comparison(texts), heading, width))
        assert.ok(columns(line) <= width, `${width}: ${line}`);
  });
});
