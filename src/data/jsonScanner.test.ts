import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { findElementOffsets, findJsonFault, findUnusable } from './jsonScanner.js';
import { SeededRandom } from './random.js';

function parses(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

describe('findJsonFault', () => {
  test('finds a fault in exactly the texts that JSON.parse refuses', () => {
    const seeds = [
      '{"a": [1, -2.5e+3, true, null], "b": "x\\u00e9\\n", "c": {}}',
      '[[], {"": 0}, "\\"\\\\", false, 10, 0.1]',
    ];
    const noise = Array.from('{}[]",:\\0123456789.eE+-truefalsn \n\t\u0001u');
    const random = new SeededRandom(7);
    let valid = 0;
    for (let trial = 0; trial < 20_000; trial++) {
      const characters = Array.from(seeds[random.nextInt(seeds.length)] ?? '');
      for (let change = random.nextInt(4); change > 0; change--) {
        const at = random.nextInt(characters.length);
        characters.splice(at, random.nextInt(2), noise[random.nextInt(noise.length)] ?? '');
      }
      const text = characters.join('');
      const fault = findJsonFault(text);
      assert.equal(fault === undefined, parses(text), text);
      if (fault === undefined) valid++;
      // What precedes the fault can always be the beginning of JSON, so the place is not too late.
      else assert.ok(fault.offset <= text.length);
    }
    assert.ok(valid > 1000 && valid < 19_000, `${valid} of 20000 were valid: the test needs both`);
  });

  const cases: [text: string, offset: number, expected: string][] = [
    ['', 0, 'a value'],
    ['{"a" 1}', 5, '":"'],
    ['{a: 1}', 1, 'a name in double quotes'],
    ['[1 2]', 3, '"," or "]"'],
    ['{"a": 1 "b"}', 8, '"," or "}"'],
    ['01', 1, 'a number without leading zeros'],
    ['-', 0, 'a number'],
    ['"a\nb"', 2, 'an escape such as \\n instead of a control character'],
    ['"\\x"', 1, 'one of the escapes \\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX'],
    ['NaN', 0, 'a value'],
  ];
  for (const [text, offset, expected] of cases) {
    test(`${JSON.stringify(text)} breaks at ${offset}`, () => {
      const fault = findJsonFault(text);
      assert.deepEqual([fault?.offset, fault?.expected], [offset, expected]);
    });
  }
});

describe('findElementOffsets', () => {
  test('gives the beginning of each element', () => {
    assert.deepEqual(findElementOffsets(' [ 1,{"a":[2,3]} , "x"]'), [3, 5, 19]);
    assert.deepEqual(findElementOffsets('[]'), []);
  });

  test('says what keeps a text from being a list', () => {
    assert.deepEqual(findElementOffsets('{}'), {
      offset: 0,
      expected: 'a list, starting with "["',
      received: '"{"',
    });
  });
});

describe('findUnusable', () => {
  test('finds halves of characters in exactly the texts whose value has some', () => {
    const random = new SeededRandom(11);
    const pieces = ['\\ud83d', '\\uDE00', '\\\\', '\\n', 'u', 'd83d', 'a', '\\u00e9', '\u{1F642}'];
    let whole = 0;
    for (let trial = 0; trial < 5000; trial++) {
      const text = Array.from({ length: random.nextInt(6) }, () => pieces[random.nextInt(9)]);
      const json = `{"a": "${text.join('')}"}`;
      const { a } = JSON.parse(json) as { a: string };
      const isWhole = !/\p{Surrogate}/u.test(a);
      assert.equal(findUnusable(json) === undefined, isWhole, json);
      if (isWhole) whole++;
    }
    assert.ok(whole > 500 && whole < 4500, `${whole} of 5000 were whole: the test needs both`);
  });

  test('refuses what is nested more deeply than a row may be, and counts no signs within texts', () => {
    const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth);
    assert.equal(findUnusable(nested(501)), undefined);
    assert.equal(findUnusable(nested(502))?.offset, 501);
    assert.equal(findUnusable(JSON.stringify({ code: '[{'.repeat(2000) })), undefined);
    assert.equal(findUnusable(JSON.stringify(Array(2000).fill([]))), undefined);
  });
});
