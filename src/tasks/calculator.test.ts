import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { calculatorEnvironment } from '../environments/index.js';
import { exactMatch } from '../rewards/index.js';
import { calculatorTask } from './calculator.js';

const PROMPT = /^(\d\d)\*(\d\d)([-+*])([2-9]):$/;

/** The parts of a prompt, and its answer worked out anew. */
function solve(prompt: string): { a: number; b: number; operator: string; value: number } {
  const [, first, second, operator = '', last] = PROMPT.exec(prompt) ?? [];
  const [a, b, c] = [Number(first), Number(second), Number(last)];
  const value = { '+': a * b + c, '-': a * b - c, '*': a * b * c }[operator];
  return { a, b, operator, value: value ?? NaN };
}

/** Plays a demonstration against the calculator: the model's part is what stands before = and after ;. */
async function play(prompt: string, completion: string): Promise<string> {
  let state = await calculatorEnvironment.reset({ prompt, row: {} });
  const [call, rest] = completion.split(/(?<==)/);
  const answer = rest === undefined ? (call ?? '') : rest.replace(/^[^;]*;/, '');
  let text = '';
  for (const [index, turn] of (rest === undefined ? [answer] : [call ?? '', answer]).entries()) {
    const finishReason = turn.endsWith('=') ? 'stop' : 'eos';
    const step = await calculatorEnvironment.step(state, { text: turn, index, finishReason });
    ({ state } = step);
    text += turn + step.observation;
    assert.equal(step.done, index === 1 || rest === undefined);
  }
  assert.equal(text, completion);
  return answer;
}

describe('calculatorTask', () => {
  const task = calculatorTask({ seed: 0 });

  test('has the asked number of different problems, all of the same form', () => {
    assert.equal(task.demonstrations.length, 20_000);
    assert.equal(new Set(task.trainPrompts.map(({ prompt }) => prompt)).size, 20_000);
    assert.equal(new Set(task.heldOut.map(({ prompt }) => prompt)).size, 500);
    for (const { prompt } of [...task.trainPrompts, ...task.heldOut]) assert.match(prompt, PROMPT);
  });

  test('held-out problems never occur in training, in either order of the factors', () => {
    const trained = new Set(task.demonstrations.map(({ prompt }) => prompt));
    const heldOut = new Set<string>();
    for (const { prompt } of task.heldOut) {
      const exchanged = prompt.replace(/^(\d\d)\*(\d\d)/, '$2*$1');
      assert.ok(!trained.has(prompt) && !trained.has(exchanged), prompt);
      assert.ok(!heldOut.has(exchanged), prompt);
      heldOut.add(prompt);
    }
  });

  test('every answer is the value of its problem', () => {
    for (const { prompt, answer } of [...task.trainPrompts, ...task.heldOut]) {
      assert.equal(answer, String(solve(prompt).value));
    }
  });

  test('the parts of a problem are spread evenly, all values occurring', () => {
    for (const at of [1, 2, 3, 4]) {
      const counts = new Map<string, number>();
      for (const { prompt } of task.trainPrompts) {
        const part = PROMPT.exec(prompt)?.[at] ?? '';
        counts.set(part, (counts.get(part) ?? 0) + 1);
      }
      const kinds = [90, 90, 3, 8][at - 1] ?? 0;
      assert.equal(counts.size, kinds);
      const mean = 20_000 / kinds;
      // Six standard errors of a binomial count, for 191 counts: below 4e-7.
      for (const count of counts.values()) assert.ok(Math.abs(count - mean) < 6 * Math.sqrt(mean));
    }
  });

  test('every text is made of the named characters and as short as said', () => {
    const characters = new Set(task.characters);
    assert.equal(characters.size, task.characters.length);
    for (const { prompt, completion } of task.demonstrations) {
      assert.ok(Array.from(prompt + completion).every((character) => characters.has(character)));
      assert.ok(completion.length <= 19);
    }
    assert.ok(Array.from('?;').every((character) => characters.has(character)));
  });

  test('a demonstration is an episode: the calculator says in it what it would say', async () => {
    for (const { prompt, completion } of task.demonstrations.slice(0, 500)) {
      const answer = await play(prompt, completion);
      assert.match(answer, /^\d+$/);
    }
  });

  test('three kinds of demonstration, in the shares that are set', () => {
    const counts = { guess: 0, right: 0, wrongCall: 0, couldForget: 0 };
    task.demonstrations.forEach(({ prompt, completion }, index) => {
      assert.equal(prompt, task.trainPrompts[index]?.prompt);
      const { a, b, operator, value } = solve(prompt);
      if (!completion.includes('=')) {
        counts.guess++;
        assert.notEqual(Number(completion), value);
        assert.equal(Math.floor(Number(completion) / 100), Math.floor(value / 100));
        return;
      }
      if (operator !== '+') counts.couldForget++;
      if (completion === `${prompt.slice(0, -1)}=${value};${value}`) {
        counts.right++;
        return;
      }
      counts.wrongCall++;
      assert.notEqual(operator, '+');
      assert.notEqual(a * b, value);
      assert.equal(completion, `${a}*${b}=${a * b};${a * b}`);
    });
    // Standard errors: √(0.7·0.3/20000) = 0.0032, √(0.8·0.2/9333) = 0.0041; five of each (6e-7).
    assert.ok(Math.abs(counts.guess / 20_000 - 0.3) < 0.0163);
    assert.ok(Math.abs(counts.wrongCall / counts.couldForget - 0.8) < 0.021);
    // 0.7·(1 − ⅔·0.8) = 0.327, standard error 0.0033.
    assert.ok(Math.abs(counts.right / 20_000 - 0.327) < 0.0167);
  });

  test('the answer column is what exact-match compares the last turn with', async () => {
    const [row] = task.heldOut;
    assert.ok(row);
    const reward = exactMatch();
    const input = { prompt: row.prompt, row, finishReason: 'eos', completionTokens: 4 } as const;
    assert.equal(await reward({ ...input, completion: row.answer }), 1);
    assert.equal(await reward({ ...input, completion: `${row.answer}0` }), 0);
  });

  test('the seed decides everything', () => {
    const small = { trainCount: 50, heldOutCount: 10 };
    assert.deepEqual(calculatorTask({ seed: 7, ...small }), calculatorTask({ seed: 7, ...small }));
    assert.notDeepEqual(
      calculatorTask({ seed: 7, ...small }).heldOut,
      calculatorTask({ seed: 8, ...small }).heldOut,
    );
  });

  test('shares of 0 and 1, and a share changes no problem', () => {
    const small = { seed: 1, trainCount: 200, heldOutCount: 5 };
    const completions = (shares: { toolShare?: number; wrongCallShare?: number }): string[] => {
      const made = calculatorTask({ ...small, ...shares });
      assert.deepEqual(made.trainPrompts, calculatorTask(small).trainPrompts);
      return made.demonstrations.map(({ completion }) => completion);
    };
    assert.ok(completions({ toolShare: 0 }).every((text) => !text.includes('=')));
    const perfect = completions({ toolShare: 1, wrongCallShare: 0 });
    const { trainPrompts } = calculatorTask(small);
    assert.deepEqual(
      perfect,
      trainPrompts.map(({ prompt, answer }) => `${prompt.slice(0, -1)}=${answer};${answer}`),
    );
    const careless = completions({ toolShare: 1, wrongCallShare: 1 });
    careless.forEach((text, index) => {
      const isSum = trainPrompts[index]?.prompt.includes('+');
      assert.equal(text === perfect[index], isSum);
    });
  });

  describe('rejects', () => {
    const cases: [options: Parameters<typeof calculatorTask>[0], message: string][] = [
      [{ seed: 0, trainCount: 0 }, 'trainCount to be a positive integer, received 0'],
      [{ seed: 0, heldOutCount: 1.5 }, 'heldOutCount to be a positive integer, received 1.5'],
      [{ seed: 0, toolShare: -0.1 }, 'toolShare from 0 to 1, received -0.1'],
      [{ seed: 0, wrongCallShare: NaN }, 'wrongCallShare from 0 to 1, received NaN'],
      [
        { seed: 0, trainCount: 97_000, heldOutCount: 101 },
        'trainCount + 2 · heldOutCount of at most 97200, received 97202',
      ],
    ];
    for (const [options, message] of cases) {
      test(message, () => {
        assert.throws(() => calculatorTask(options), {
          code: 'E_RANGE',
          message: `calculatorTask: expected ${message}.`,
        });
      });
    }
  });
});
