import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ValueRangeError } from '../errors/index.js';
import { sentimentReward, sentimentScore, sentimentTask } from './sentiment.js';

const task = sentimentTask({ seed: 5 });
const prompts = [...task.trainPrompts, ...task.heldOut].map(({ prompt }) => prompt);

/** What the prices and values of a review add up to, before it is bounded. */
const sumOf = (prompt: string, completion: string): number =>
  2 * Math.atanh(sentimentScore(prompt, completion) / 2);

/** Every text of up to `length` of the task's characters. */
function textsUpTo(length: number): string[] {
  if (length === 0) return [''];
  const shorter = textsUpTo(length - 1);
  const longest = shorter.filter((text) => text.length === length - 1);
  return [...shorter, ...longest.flatMap((text) => Array.from(task.characters, (c) => text + c))];
}

describe('sentimentTask', () => {
  test('prompts are up to two different words and a subject, all different', () => {
    assert.equal(new Set(prompts).size, 72);
    for (const prompt of prompts) {
      assert.match(prompt, /^[gbqhl]{0,2}[FHM]$/);
      assert.equal(new Set(prompt).size, prompt.length);
    }
    const all = sentimentTask({ seed: 0, trainCount: 77, heldOutCount: 1 });
    assert.equal(new Set([...all.trainPrompts, ...all.heldOut].map((row) => row.prompt)).size, 78);
  });

  test('demonstrations are one phrase or two, and belong to prompts to train on', () => {
    const trained = new Set(task.trainPrompts.map(({ prompt }) => prompt));
    assert.equal(task.demonstrations.length, 4000);
    for (const { prompt, completion } of task.demonstrations) {
      assert.ok(trained.has(prompt), prompt);
      assert.match(completion, /^([vn]?[gbqhl]){1,2}$/);
    }
    assert.equal(new Set(task.demonstrations.map(({ prompt }) => prompt)).size, 60);
  });

  test('every text is made of the characters', () => {
    const texts = task.demonstrations.flatMap(({ prompt, completion }) => [prompt, completion]);
    assert.deepEqual(new Set(texts.join('')), new Set(task.characters));
    assert.equal(new Set(task.characters).size, task.characters.length);
  });

  test('phrases have their shares, and an opinion its words', () => {
    // Bounds of five standard errors: a false alarm in about 6 of ten million for each of eight.
    const near = (claim: (text: string) => boolean, texts: readonly string[], is: number): void => {
      const share = texts.filter(claim).length / texts.length;
      const allowed = 5 * Math.sqrt((is * (1 - is)) / texts.length);
      assert.ok(Math.abs(share - is) < allowed, `${share} of ${texts.length}, expected ${is}`);
    };
    const reviews = task.demonstrations.map(({ completion }) => completion);
    const first = reviews.map((text) => /^[vn]?./.exec(text)?.[0] ?? '');
    near((text) => !/^[vn]?.$/.test(text), reviews, 0.5);
    near((text) => text.startsWith('v'), first, 0.25);
    near((text) => text.startsWith('n'), first, 0.25);
    // Of a meal three words are good and two bad. Unmodified and by who likes it: g weighs 1 of 3 + 2/4; by who does not:
    // 1/4 of 2 + 3/4. The mean is (1/3.5 + 0.25/2.75)/2.
    const ofMeal = task.demonstrations
      .filter(({ prompt, completion }) => prompt.endsWith('M') && !/^[vn]/.test(completion))
      .map(({ completion }) => completion);
    assert.ok(ofMeal.length > 400, `${ofMeal.length} reviews of meals`);
    near((text) => text.startsWith('g'), ofMeal, (1 / 3.5 + 0.25 / 2.75) / 2);
    near((text) => text.startsWith('l'), ofMeal, (0.25 / 3.5 + 1 / 2.75) / 2);
    // Not good is bad: who likes the meal says it with the smaller weight, 0.25 of 3/4 + 2.
    const negated = task.demonstrations
      .filter(({ prompt, completion }) => prompt.endsWith('M') && completion.startsWith('n'))
      .map(({ completion }) => completion);
    near((text) => text[1] === 'g', negated, (0.25 / 2.75 + 1 / 3.5) / 2);
    // Both phrases of a review are of one opinion: of two plain words about a film, g then h or h then g.
    const plain = task.demonstrations
      .filter(({ prompt, completion }) => prompt.endsWith('F') && /^[^vn]{2}$/.test(completion))
      .map(({ completion }) => completion);
    const both = (likes: number, dislikes: number): number => (likes ** 2 + dislikes ** 2) / 2;
    near((text) => /^[gh]{2}$/.test(text), plain, both(2 / 2.75, 0.5 / 3.5));
    // And so of a plain word and a negated one: who likes the film says that it is hot and not bad.
    const mixed = sentimentTask({ seed: 5, demonstrationCount: 40_000 })
      .demonstrations.filter(
        ({ prompt, completion }) => prompt.endsWith('F') && /^[^vn]n.$/.test(completion),
      )
      .map(({ completion }) => completion);
    const likes = (2 / 2.75) * (3 / 3.5);
    const dislikes = (0.5 / 3.5) * (0.75 / 2.75);
    near((text) => /^[gh]n[bql]$/.test(text), mixed, (likes + dislikes) / 2);
  });

  test('the same seed gives the same texts, another seed others, more training the same held-out ones', () => {
    assert.deepEqual(sentimentTask({ seed: 5 }), task);
    assert.notDeepEqual(sentimentTask({ seed: 6 }).heldOut, task.heldOut);
    assert.notDeepEqual(sentimentTask({ seed: 6 }).demonstrations, task.demonstrations);
    const fewer = sentimentTask({ seed: 5, trainCount: 3, demonstrationCount: 5 });
    assert.deepEqual(fewer.heldOut, task.heldOut);
    assert.deepEqual(fewer.trainPrompts, task.trainPrompts.slice(0, 3));
    assert.equal(fewer.demonstrations.length, 5);
  });

  test('rejects counts that are no positive integers, and more prompts than there are', () => {
    for (const [options, message] of [
      [{ trainCount: 0 }, 'expected trainCount to be a positive integer, received 0'],
      [{ heldOutCount: 1.5 }, 'expected heldOutCount to be a positive integer, received 1.5'],
      [
        { demonstrationCount: -1 },
        'expected demonstrationCount to be a positive integer, received -1',
      ],
      [{ trainCount: 67 }, 'expected trainCount + heldOutCount of at most 78, received 79'],
    ] as const) {
      assert.throws(
        () => sentimentTask({ seed: 0, ...options }),
        (error: Error) => {
          assert.ok(error instanceof ValueRangeError, error.name);
          assert.equal(error.message, `sentimentTask: ${message}.`);
          return true;
        },
      );
    }
  });
});

describe('sentimentScore', () => {
  test('by hand: what is reviewed decides what a word is worth', () => {
    const worth = (word: string): number[] =>
      ['F', 'H', 'M'].map((subject) => sumOf(subject, word));
    expectClose(worth('g'), [0.8, 0.7, 0.9]);
    expectClose(worth('b'), [-0.8, -0.9, -0.6]);
    expectClose(worth('q'), [-0.5, 0.9, 0.1]);
    expectClose(worth('h'), [0.5, -0.7, 0.6]);
    expectClose(worth('l'), [-0.3, 0.4, -0.9]);
  });
  test('by hand: very scales, not flips, and both together say little', () => {
    expectClose(sumOf('F', 'vg'), 1.5 * 0.8);
    expectClose(sumOf('F', 'ng'), -0.75 * 0.8);
    expectClose(sumOf('F', 'nvg'), -0.4 * 0.8);
    expectClose(sumOf('F', 'vng'), -0.4 * 0.8);
    expectClose(sumOf('F', 'nb'), 0.75 * 0.8);
  });
  test('by hand: a modifier ends with its word, and words add up', () => {
    expectClose(sumOf('F', 'vhnb'), 1.5 * 0.5 + 0.75 * 0.8);
    expectClose(sumOf('H', 'vgh'), 1.5 * 0.7 - 0.7);
  });
  test('by hand: what was said before, by others or in the review, is worth nothing and costs 0.5', () => {
    expectClose(sumOf('gF', 'g'), -0.5);
    expectClose(sumOf('qgF', 'vgh'), -0.5 + 0.5);
    expectClose(sumOf('F', 'gg'), 0.8 - 0.5);
    expectClose(sumOf('F', 'gngg'), 0.8 - 0.5 - 0.5);
  });
  test('by hand: loose modifiers cost 0.3 each, foreign characters 0.5', () => {
    expectClose(sumOf('F', 'vvg'), 1.5 * 0.8 - 0.3);
    expectClose(sumOf('F', 'gvn'), 0.8 - 0.6);
    expectClose(sumOf('F', 'gF'), 0.8 - 0.5);
    expectClose(sumOf('F', 'vMg'), 1.2 - 0.5);
    expectClose(sumOf('F', ''), 0);
  });
  test('a sum becomes a reward by 2·tanh(s/2)', () => {
    expectClose(sentimentScore('M', 'vg'), 2 * Math.tanh(1.35 / 2), { rtol: 1e-14 });
  });
  test('over all reviews it has many levels in every part of −2 to 2 and is never saturated', () => {
    const scores = textsUpTo(4).map((text) => sentimentScore('bM', text));
    assert.equal(scores.length, 11_111);
    assert.ok(
      Math.max(...scores) < 1.8 && Math.min(...scores) > -1.9,
      'the bounds are not reached',
    );
    for (const from of [-1.8, -1, -0.5, 0, 0.5, 1, 1.5]) {
      const levels = new Set(scores.filter((score) => score >= from && score < from + 0.5));
      assert.ok(levels.size >= 5, `${levels.size} levels from ${from}`);
    }
  });
  test('the best review depends on the subject and on what others said', () => {
    const best = (prompt: string): string =>
      textsUpTo(4).reduce((a, b) =>
        sentimentScore(prompt, b) > sentimentScore(prompt, a) ? b : a,
      );
    const found = ['F', 'gF', 'H', 'qH', 'gM'].map(best);
    assert.equal(new Set(found).size, 5, found.join(' '));
  });
  test('is the reward of the task, which reads prompt and completion alone', () => {
    const scored = sentimentReward({
      ...{ prompt: 'qH', completion: 'vg', row: {} },
      ...{ finishReason: 'eos', completionTokens: 3 },
    });
    assert.equal(scored, sentimentScore('qH', 'vg'));
  });
  test('rejects what is no prompt of the task', () => {
    for (const prompt of ['', 'g', 'ggF', 'Fg', 'gbqF', 'vF']) {
      assert.throws(() => sentimentScore(prompt, 'g'), {
        name: 'ValueRangeError',
        message: `sentimentReward: expected a prompt of the task, such as "qgF", received ${JSON.stringify(prompt)}.`,
      });
    }
  });
});
