import assert from 'node:assert/strict';
import { PassThrough, Readable } from 'node:stream';
import { describe, test } from 'node:test';
import { Keyboard } from '../../test/cli/terminal.js';
import { KeyAnswers, LineAnswers, pressKey, type Key } from './answers.js';

const typed = (text: string): Key => ({ sequence: text, name: text });

describe('pressKey', () => {
  test('numbers and signs are typed, other keys are not', () => {
    for (const sign of ['1', '9', '0', '>', '=', ' '])
      assert.deepEqual(pressKey('2', typed(sign)), { kind: 'edit', typed: `2${sign}` });
    for (const key of ['x', '<', '１', ''])
      assert.deepEqual(pressKey('2', typed(key)), { kind: 'edit', typed: '2' }, key);
    assert.deepEqual(pressKey('2', { sequence: '\x1b[A', name: 'up' }), {
      kind: 'edit',
      typed: '2',
    });
  });
  test('letters answer at once, large ones too', () => {
    const kinds = { s: 'skip', u: 'undo', r: 'show', q: 'quit', '?': 'help', S: 'skip', Q: 'quit' };
    for (const [letter, kind] of Object.entries(kinds))
      assert.deepEqual(pressKey('2>', typed(letter)), { kind: 'answer', answer: { kind } });
  });
  test('Enter answers with what is typed', () => {
    for (const name of ['return', 'enter'])
      assert.deepEqual(pressKey('2>1', { sequence: '\r', name }), {
        kind: 'answer',
        answer: { kind: 'ranking', text: '2>1' },
      });
  });
  test('backspace takes the last sign back; Esc and Ctrl-U all of them', () => {
    assert.deepEqual(pressKey('2>1', { name: 'backspace' }), { kind: 'edit', typed: '2>' });
    assert.deepEqual(pressKey('', { name: 'backspace' }), { kind: 'edit', typed: '' });
    assert.deepEqual(pressKey('2>1', { name: 'escape' }), { kind: 'edit', typed: '' });
    assert.deepEqual(pressKey('2>1', { name: 'u', ctrl: true }), { kind: 'edit', typed: '' });
  });
  test('Ctrl-C interrupts, Ctrl-D quits, other keys with Ctrl mean nothing', () => {
    assert.deepEqual(pressKey('2', { name: 'c', ctrl: true }), { kind: 'interrupt' });
    assert.deepEqual(pressKey('2', { name: 'd', ctrl: true }), {
      kind: 'answer',
      answer: { kind: 'quit' },
    });
    for (const name of ['s', 'q', 'a'])
      assert.deepEqual(pressKey('2', { name, ctrl: true }), { kind: 'edit', typed: '2' });
  });
});

describe('KeyAnswers', () => {
  function open() {
    const input = new Keyboard();
    const shown: string[] = [];
    const stops: string[] = [];
    const answers = new KeyAnswers({
      input,
      write: (text) => shown.push(text),
      onStop: (reason) => stops.push(reason),
    });
    return { input, shown, stops, answers };
  }

  test('reads a ranking key by key, and shows it', async () => {
    const { input, shown, answers } = open();
    const answer = answers.next();
    input.type('2>');
    input.type('3\x7f1\r');
    assert.deepEqual(await answer, { kind: 'ranking', text: '2>1' });
    assert.deepEqual(
      shown.map((text) => text.replace('\r\x1b[2K> ', '')),
      ['', '2', '2>', '2>3', '2>', '2>1', '\n'],
    );
  });
  test('a draft may be sent as it is, changed or dropped', async () => {
    const { input, answers } = open();
    const first = answers.next('1>2');
    input.type('\r');
    assert.deepEqual(await first, { kind: 'ranking', text: '1>2' });
    const second = answers.next('1>2');
    input.type('\x7f\x7f=2\r');
    assert.deepEqual(await second, { kind: 'ranking', text: '1=2' });
    const third = answers.next('1>2');
    input.type('s');
    assert.deepEqual(await third, { kind: 'skip' });
    const fourth = answers.next();
    input.type('\r');
    assert.deepEqual(await fourth, { kind: 'ranking', text: '' }, 'no draft is left over');
  });
  test('keys that come before the question answer nothing, but q and Ctrl-C are heard', async () => {
    const { input, stops, answers } = open();
    input.type('s1\r?');
    await new Promise((resolve) => setImmediate(resolve));
    const answer = answers.next();
    input.type('2\r');
    assert.deepEqual(await answer, { kind: 'ranking', text: '2' });
    input.type('q');
    input.type('\x03');
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(stops, ['quit', 'SIGINT']);
  });
  test('Ctrl-C stops while a question is open; a terminal that goes away quits', async () => {
    const { input, stops, shown, answers } = open();
    void answers.next();
    input.type('1\x03');
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(stops, ['SIGINT']);
    input.end();
    await new Promise((resolve) => input.once('end', resolve));
    assert.deepEqual(stops, ['SIGINT', 'quit']);
    answers.close();
    assert.equal(shown.at(-1), '\n', 'what comes next begins on a line of its own');
  });
  test('the terminal is left as it was found', () => {
    const { input, shown, answers } = open();
    assert.deepEqual(input.modes, [true]);
    answers.close();
    assert.deepEqual(input.modes, [true, false]);
    assert.deepEqual([input.listenerCount('keypress'), input.isPaused()], [0, true]);
    assert.deepEqual(shown, [], 'nothing was asked');
  });
  test('says why an answer is refused', () => {
    const { shown, answers } = open();
    answers.refuse('No.');
    assert.deepEqual(shown, ['No.\n']);
  });
});

describe('LineAnswers', () => {
  test('reads commands and rankings line by line, to the end', async () => {
    const answers = new LineAnswers(Readable.from(['2>1=3\r\n s \n\nU\n?\nr\n', 'q\n321']));
    const found: unknown[] = [];
    for (let next = await answers.next(); next !== undefined; next = await answers.next())
      found.push(next);
    assert.deepEqual(found, [
      { kind: 'ranking', text: '2>1=3' },
      { kind: 'skip' },
      { kind: 'ranking', text: '' },
      { kind: 'undo' },
      { kind: 'help' },
      { kind: 'show' },
      { kind: 'quit' },
      { kind: 'ranking', text: '321' },
    ]);
    assert.equal(await answers.next(), undefined, 'still at its end');
  });
  test('an answer may say which prompt it is meant for', async () => {
    const answers = new LineAnswers(Readable.from(['12: 2>1\n 3:s\n3:\n:s\n']));
    assert.deepEqual(await answers.next(), { kind: 'ranking', text: '2>1', prompt: 12 });
    assert.deepEqual(await answers.next(), { kind: 'skip', prompt: 3 });
    assert.deepEqual(await answers.next(), { kind: 'ranking', text: '', prompt: 3 });
    assert.deepEqual(await answers.next(), { kind: 'ranking', text: ':s' });
  });
  test('an answer that is refused ends it, with the line', async () => {
    const answers = new LineAnswers(Readable.from(['s\n1>\n']));
    await answers.next();
    await answers.next();
    assert.throws(() => answers.refuse('rank: expected more.'), {
      name: 'DataError',
      message: 'standard input:2: rank: expected more.',
      hint: 'Everything before this line is saved; --resume goes on with other answers from here.',
    });
  });
  test('answers arrive while the stream is open', async () => {
    const input = new PassThrough();
    const answers = new LineAnswers(input);
    input.write('s\nu');
    assert.deepEqual(await answers.next(), { kind: 'skip' });
    const next = answers.next();
    input.write('\n');
    assert.deepEqual(await next, { kind: 'undo' });
    answers.close();
  });
});
