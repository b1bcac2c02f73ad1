import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatNumber, formatSeconds, headline, Progress } from './index.js';

function stage(isTTY: boolean, total: number, start = 0) {
  const shown: string[] = [];
  let now = 0;
  const stream = { write: (text: string) => shown.push(text), isTTY, columns: 100 };
  const progress = new Progress(stream, { label: 'sft', total, start, clock: () => now });
  return { shown, progress, wait: (seconds: number) => (now += seconds) };
}

describe('Progress', () => {
  test('draws one line with bar, rate and time left on a terminal', () => {
    const { shown, progress, wait } = stage(true, 100);
    wait(50);
    progress.update(25, 'loss 1');
    assert.deepEqual(shown, [
      '\r\x1b[2Ksft [####............] step 25/100 (25 %) · 2.00 s/step · 2 min 30 s left · loss 1',
    ]);
    progress.update(26); // too soon to draw again
    assert.equal(shown.length, 1);
    progress.message('hello');
    assert.deepEqual(shown.slice(1), ['\r\x1b[2K', 'hello\n']);
    progress.end();
    assert.equal(shown.length, 3, 'the bar was wiped away already');
  });

  test('never draws beyond the width of the terminal', () => {
    const { shown, progress } = stage(true, 100);
    progress.update(1, 'x'.repeat(200));
    assert.equal(shown[0]?.replace('\r\x1b[2K', '').length, 99);
  });

  test('without a terminal a line comes every twentieth, or after ten seconds, and at the end', () => {
    const { shown, progress, wait } = stage(false, 100);
    for (let done = 1; done <= 100; done++) {
      wait(1);
      progress.update(done);
    }
    const steps = shown.map((line) => Number(/step (\d+)/.exec(line)?.[1]));
    assert.deepEqual(steps.slice(0, 4), [1, 6, 11, 16]);
    assert.equal(steps.at(-1), 100);
    assert.ok(shown.every((line) => line.endsWith('\n') && !line.includes('\x1b')));

    const slow = stage(false, 1000);
    for (let done = 1; done <= 3; done++) {
      slow.wait(11);
      slow.progress.update(done);
    }
    assert.equal(slow.shown.length, 3);
  });

  test('the rate is that of the last half minute', () => {
    const { shown, progress, wait } = stage(false, 1000);
    wait(40);
    progress.update(1); // a slow start
    for (let done = 2; done <= 41; done++) {
      wait(1);
      progress.update(done);
    }
    assert.match(shown.at(-1) ?? '', /1\.00 steps\/s/);
  });

  test('the rate counts only what was done here', () => {
    const { shown, progress, wait } = stage(false, 100, 90);
    wait(5);
    progress.update(95);
    assert.match(shown[0] ?? '', /step 95\/100 \(95 %\) · 1\.00 steps\/s · 5 s left/);
  });
});

describe('numbers for people', () => {
  test('durations', () => {
    assert.deepEqual([0.4, 59, 200, 7500].map(formatSeconds), [
      '0 s',
      '59 s',
      '3 min 20 s',
      '2 h 5 min',
    ]);
  });
  test('numbers in four digits', () => {
    assert.deepEqual([0.123456, 12345.6, 1e-6, 0, Number.NaN, 1234567].map(formatNumber), [
      '0.1235',
      '12350',
      '1.0e-6',
      '0',
      'NaN',
      '1.2e+6',
    ]);
  });
  test('the most telling metrics first', () => {
    assert.equal(
      headline({ x: 1, loss: 2, reward: 0.5, learningRate: 1 }, 2),
      'reward 0.5, loss 2',
    );
  });
});
