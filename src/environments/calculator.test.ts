import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { calculatorEnvironment, evaluate } from './calculator.js';
import type { EnvironmentStep, ModelTurn } from './environment.js';

/** What the calculator says to turns with these texts, in order. */
async function talk(...texts: readonly string[]): Promise<[observation: string, done: boolean][]> {
  let state = await calculatorEnvironment.reset({ prompt: '17*46+8:', row: {} });
  const said: [string, boolean][] = [];
  for (const [index, text] of texts.entries()) {
    const turn: ModelTurn = { text, index, finishReason: text.endsWith('=') ? 'stop' : 'eos' };
    const step: EnvironmentStep<typeof state> = await calculatorEnvironment.step(state, turn);
    ({ state } = step);
    said.push([step.observation, step.done]);
  }
  return said;
}

describe('calculatorEnvironment', () => {
  test('answers one call, then the model answers', async () => {
    assert.deepEqual(await talk('17*46+8=', '790'), [
      ['790;', false],
      ['', true],
    ]);
  });
  test('a turn without = is the answer, also when it is empty or cut off', async () => {
    for (const text of ['790', '17*46+8', '']) assert.deepEqual(await talk(text), [['', true]]);
  });
  test('a second call is refused, and the model may still answer', async () => {
    assert.deepEqual(await talk('1+1=', '2+2=', '4'), [
      ['2;', false],
      ['?;', false],
      ['', true],
    ]);
  });
  test('a malformed call is refused and was the one call', async () => {
    assert.deepEqual(await talk('1+=', '1+1='), [
      ['?;', false],
      ['?;', false],
    ]);
  });
  test('what follows = in the same token makes the call malformed', async () => {
    assert.deepEqual(await talk('1+1=2'), [['?;', false]]);
  });
  test('ends turns at = and has a name', () => {
    assert.deepEqual(
      [calculatorEnvironment.name, calculatorEnvironment.stop],
      ['calculator', ['=']],
    );
  });
  test('episodes do not know of each other', async () => {
    assert.deepEqual(await Promise.all([talk('1+1='), talk('2*3=')]), [
      [['2;', false]],
      [['6;', false]],
    ]);
  });
});

describe('evaluate', () => {
  test('by hand', () => {
    const cases: [expression: string, value: bigint][] = [
      ['7', 7n],
      ['007', 7n],
      ['17*46+8', 790n],
      ['8+17*46', 790n],
      ['9-4-3', 2n], // from the left
      ['2*3*4-5*6', -6n],
      ['10-2*3', 4n],
      ['-3*4', -12n],
      ['3*-4', -12n],
      ['3--4', 7n],
      ['3+-4', -1n],
      [' 12 + 3 * 2 ', 18n],
      ['99999999*99999999*99999999', 99999999n ** 3n], // beyond 2^53
    ];
    for (const [expression, value] of cases) assert.equal(evaluate(expression), value, expression);
  });
  test('anything else has no value', () => {
    const wrong = [
      '',
      ' ',
      '+3',
      '3+',
      '3**4',
      '3+*4',
      '1 2',
      '3/4',
      '(3)',
      '3.5',
      'x',
      '1e3',
      '--3',
    ];
    for (const expression of wrong) assert.equal(evaluate(expression), undefined, expression);
  });
  test('a long malformed text is refused at once', () => {
    const started = performance.now();
    assert.equal(evaluate(`${'1+'.repeat(20_000)}x`), undefined);
    assert.equal(evaluate(`1${' '.repeat(20_000)}x`), undefined);
    assert.ok(performance.now() - started < 2000);
  });
});
