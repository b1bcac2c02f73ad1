import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  additionAnswer,
  additionPrompt,
  additionTask,
  additionWithoutCarry,
  assertDisjoint,
} from './addition.js';

const key = (prompt: string): string => prompt.slice(0, -1).split('+').sort().join('+');

describe('additionTask', () => {
  const task = additionTask({ seed: 0 });

  test('has the asked number of different problems', () => {
    assert.equal(task.demonstrations.length, 20_000);
    assert.equal(task.trainPrompts.length, 20_000);
    assert.equal(task.heldOut.length, 500);
    assert.equal(new Set(task.trainPrompts.map(({ prompt }) => prompt)).size, 20_000);
    assert.equal(new Set(task.heldOut.map(({ prompt }) => key(prompt))).size, 500);
  });

  test('held-out problems never occur in training, in either order of the summands', () => {
    const trained = new Set(task.demonstrations.map(({ prompt }) => key(prompt)));
    assert.ok(task.heldOut.every(({ prompt }) => !trained.has(key(prompt))));
  });

  test('every answer is the sum, least digit first, with four digits', () => {
    for (const { prompt, answer } of [...task.trainPrompts.slice(0, 2000), ...task.heldOut]) {
      const [, a, b] = /^(\d{3})\+(\d{3})=$/.exec(prompt) ?? [];
      assert.match(answer, /^\d{4}$/);
      assert.equal(Number(Array.from(answer).reverse().join('')), Number(a) + Number(b));
    }
  });

  test('every text is made of the named characters', () => {
    const characters = new Set(task.characters);
    assert.equal(characters.size, task.characters.length);
    for (const { prompt, completion } of task.demonstrations) {
      assert.ok(Array.from(prompt + completion).every((character) => characters.has(character)));
    }
  });

  test('about 60 % of the demonstrations with a carry are wrong, and no other', () => {
    let withCarry = 0;
    let wrong = 0;
    task.demonstrations.forEach(({ prompt, completion }, index) => {
      assert.equal(prompt, task.trainPrompts[index]?.prompt);
      const [a = 0, b = 0] = prompt.slice(0, -1).split('+').map(Number);
      const right = additionAnswer(a, b, 3);
      const careless = additionWithoutCarry(a, b, 3);
      assert.ok(completion === right || completion === careless);
      if (right === careless) return;
      withCarry++;
      if (completion === careless) wrong++;
    });
    // Standard errors: √(0.6·0.4/16600) = 0.0038 and √(0.83·0.17/20000) = 0.0026; five of each (6e-7).
    assert.ok(Math.abs(wrong / withCarry - 0.6) < 0.019, `${wrong / withCarry}`);
    assert.ok(Math.abs(withCarry / 20_000 - (1 - 0.55 ** 3)) < 0.0135, `${withCarry / 20_000}`);
  });

  test('the seed decides everything', () => {
    const small = { trainCount: 50, heldOutCount: 10 };
    assert.deepEqual(additionTask({ seed: 7, ...small }), additionTask({ seed: 7, ...small }));
    assert.notDeepEqual(
      additionTask({ seed: 7, ...small }).heldOut,
      additionTask({ seed: 8, ...small }).heldOut,
    );
  });

  test('shares of 0 and 1 make all demonstrations right or careless', () => {
    const small = { seed: 1, trainCount: 100, heldOutCount: 5 };
    const right = additionTask({ ...small, carryFailureShare: 0 });
    assert.deepEqual(
      right.demonstrations.map(({ completion }) => completion),
      right.trainPrompts.map(({ answer }) => answer),
    );
    const careless = additionTask({ ...small, carryFailureShare: 1 });
    assert.ok(careless.demonstrations.every(({ completion }) => completion.endsWith('0')));
  });

  test('works with one digit', () => {
    const task1 = additionTask({ seed: 0, digits: 1, trainCount: 30, heldOutCount: 10 });
    assert.match(task1.heldOut[0]?.prompt ?? '', /^\d\+\d=$/);
    assert.match(task1.heldOut[0]?.answer ?? '', /^\d\d$/);
  });

  describe('rejects', () => {
    const cases: [options: Parameters<typeof additionTask>[0], message: string][] = [
      [{ seed: 0, digits: 0 }, 'digits from 1 to 7, received 0'],
      [{ seed: 0, digits: 8 }, 'digits from 1 to 7, received 8'],
      [{ seed: 0, trainCount: 0 }, 'trainCount to be a positive integer, received 0'],
      [{ seed: 0, heldOutCount: 1.5 }, 'heldOutCount to be a positive integer, received 1.5'],
      [{ seed: 0, carryFailureShare: 1.1 }, 'carryFailureShare from 0 to 1, received 1.1'],
      [
        { seed: 0, digits: 1, trainCount: 40, heldOutCount: 10 },
        'trainCount + 2 · heldOutCount of at most 50 with 1 digits, received 60',
      ],
    ];
    for (const [options, message] of cases) {
      test(message, () => {
        assert.throws(() => additionTask(options), {
          code: 'E_RANGE',
          message: `additionTask: expected ${message}.`,
        });
      });
    }
  });
});

describe('by hand', () => {
  test('407 + 086 = 493', () => {
    assert.equal(additionPrompt(407, 86, 3), '407+086=');
    assert.equal(additionAnswer(407, 86, 3), '3940');
    // 7+6 = 13 → 3, 0+8 = 8, 4+0 = 4, and no carry on top.
    assert.equal(additionWithoutCarry(407, 86, 3), '3840');
  });

  test('999 + 001 carries through', () => {
    assert.equal(additionAnswer(999, 1, 3), '0001');
    assert.equal(additionWithoutCarry(999, 1, 3), '0990');
  });
});

describe('assertDisjoint', () => {
  test('rejects a problem on both sides, exchanged summands included', () => {
    const train = [{ prompt: '12+34=' }];
    assertDisjoint(train, [{ prompt: '12+35=' }]);
    for (const prompt of ['12+34=', '34+12=']) {
      assert.throws(() => assertDisjoint(train, [{ prompt }]), {
        code: 'E_DATA',
        message: `assertDisjoint: expected held-out problems that are never trained, but "${prompt}" is trained as "12+34=".`,
      });
    }
  });
});
