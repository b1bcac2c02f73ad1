import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ciderD, documentFrequencies } from '../rewards/index.js';
import { translationTask, type TranslationTaskOptions } from './index.js';

const task = translationTask({ seed: 0 });
const problems = [...task.trainPrompts, ...task.heldOut];
/** What each source word may be called, the usual word first. */
const MEANINGS = new Map(
  `dov dogs, kel cats, mur men, wen women, gil girls, bap boys, rin kings, coz cooks, ald old|aged, bor big|large,
  tik small|tiny, hap happy|glad, faz quick|fast, sul sad|upset, tol wise|smart, ruk rich|noble, gub carts, pix boxes,
  lum lamps, var boats, nod doors, zem cakes, fel balls, hut hats, sek pushed|shoved, wul washed|rinsed, mog moved|hauled,
  jin found|spied, lov liked|loved, fim fixed|mended, sut sold|traded, kab cut|sliced, ona early|at dawn,
  ulo later|in time, mav often|usually, ide again|anew, esu slowly|gently, pam calmly|at ease`
    .split(/,\s+/)
    .map((entry) => [entry.slice(0, 3), entry.slice(4).split('|')] as const),
);
const isPassive = (text: string): boolean => text.includes(' were ');
const wordsIn = (text: string): number => text.split(' ').length;
const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

describe('translationTask', () => {
  test('has the asked number of different sources, the held-out ones never trained', () => {
    assert.equal(task.demonstrations.length, 4000);
    assert.equal(task.trainPrompts.length, 4000);
    assert.equal(task.heldOut.length, 300);
    assert.equal(new Set(problems.map(({ prompt }) => prompt)).size, 4300);
    const trained = new Set(task.demonstrations.map(({ prompt }) => prompt));
    assert.ok(task.heldOut.every(({ prompt }) => !trained.has(prompt)));
  });

  test('the first texts of seed 0 are these on every machine', () => {
    assert.deepEqual(task.trainPrompts[0], {
      prompt: 'ona bap ald pix kab=',
      references: [
        'at dawn old boys cut boxes',
        'boxes were cut by aged boys at dawn',
        'boxes were early cut by aged boys',
        'boxes were early cut by old boys',
      ],
    });
    assert.deepEqual(task.demonstrations[0], {
      prompt: 'ona bap ald pix kab=',
      completion: 'at dawn old boys cut boxes',
    });
  });

  test('every source has three to five different references', () => {
    const counts = new Map<number, number>();
    for (const { references } of problems) {
      assert.equal(new Set(references).size, references.length);
      counts.set(references.length, (counts.get(references.length) ?? 0) + 1);
    }
    assert.deepEqual(new Set(counts.keys()), new Set([3, 4, 5]));
    // A third each; standard error √(2/9/4300) = 0.0072, five of them (6e-7 for each of three).
    for (const count of counts.values()) {
      assert.ok(Math.abs(count / 4300 - 1 / 3) < 0.036, `${count}`);
    }
  });

  test('every text is short and made of the named characters', () => {
    const characters = new Set(task.characters);
    assert.equal(characters.size, task.characters.length);
    const seen = new Set<string>();
    const completions = task.demonstrations.map(({ completion }) => completion);
    for (const text of [...completions, ...problems.flatMap(({ references }) => references)]) {
      assert.ok(text.length > 0 && text.length <= 40, text);
      assert.doesNotMatch(text, /^ | $| {2}|=/);
      for (const character of text) seen.add(character);
    }
    for (const { prompt } of problems) {
      assert.match(prompt, /^\w{3}( \w{3}){3,4}=$/);
      for (const character of prompt) seen.add(character);
    }
    assert.deepEqual(seen, characters);
  });

  test('a reference says what the source says, and nothing else', () => {
    for (const { prompt, references } of problems) {
      for (const [source, english] of MEANINGS) {
        const isSaid = new RegExp(`\\b(?:${english.join('|')})\\b`);
        for (const reference of references) {
          assert.equal(isSaid.test(reference), prompt.includes(source), `${prompt} ${reference}`);
        }
      }
    }
  });

  test('references have four word orders and different lengths', () => {
    const find = (prompt: RegExp): string[] =>
      problems.flatMap((problem) => (prompt.test(problem.prompt) ? problem.references : []));
    // "ona … tik … …": early/at dawn, small/tiny.
    const orders = [
      /^(?:small|tiny) \w+ \w+ \w+ (?:early|at dawn)$/,
      /^(?:early|at dawn) (?:small|tiny) \w+ \w+ \w+$/,
      /^\w+ were \w+ by (?:small|tiny) \w+ (?:early|at dawn)$/,
      /^\w+ were (?:early|at dawn) \w+ by (?:small|tiny) \w+$/,
    ];
    const references = find(/^ona \w+ tik/);
    assert.ok(references.length > 100);
    for (const reference of references) {
      assert.equal(orders.filter((order) => order.test(reference)).length, 1, reference);
    }
    for (const order of orders) assert.ok(references.some((reference) => order.test(reference)));
    // 4 words without a quality in the active, 8 with one, `at dawn` and the passive.
    const lengths = new Set(find(/^ona/).map(wordsIn));
    assert.deepEqual(lengths, new Set([4, 5, 6, 7, 8]));
  });

  test('orders and words have the stated shares', () => {
    // The first reference of a source is a plain draw; the later ones must differ from it.
    const first = problems.map(({ references: [text = ''] }) => text);
    // Within five standard errors: 6e-7 for each of four.
    const expectShare = (claim: (text: string) => boolean, of: readonly string[], is: number) => {
      const share = of.filter(claim).length / of.length;
      const allowed = 5 * Math.sqrt((is * (1 - is)) / of.length);
      assert.ok(Math.abs(share - is) < allowed, `${share} of ${of.length}, expected ${is}`);
    };
    expectShare(isPassive, first, 0.4);
    const fronted = /^(?:early|at|later|in|often|usually|again|anew|slowly|gently|calmly) /;
    expectShare(
      (text) => fronted.test(text),
      first.filter((text) => !isPassive(text)),
      0.5,
    );
    const inside = / were (?:early|at|later|in|often|usually|again|anew|slowly|gently|calmly) /;
    expectShare((text) => inside.test(text), first.filter(isPassive), 0.5);
    const usualVerb = /\b(?:pushed|washed|moved|found|liked|fixed|sold|cut)\b/;
    expectShare((text) => usualVerb.test(text), first, 0.7);
  });

  describe('demonstrations', () => {
    test('are one reference each, every one as likely, without noise', () => {
      const clean = translationTask({ seed: 0, noiseShare: 0 });
      const chosen = new Map<number, number>();
      let ofThree = 0;
      clean.demonstrations.forEach(({ prompt, completion }, index) => {
        const problem = clean.trainPrompts[index];
        assert.equal(prompt, problem?.prompt);
        const at = problem?.references.indexOf(completion) ?? -1;
        assert.ok(at >= 0);
        if (problem?.references.length !== 3) return;
        ofThree++;
        chosen.set(at, (chosen.get(at) ?? 0) + 1);
      });
      // √(2/9/1333) = 0.0129; five of them (6e-7 for each of three).
      for (const count of chosen.values()) {
        assert.ok(Math.abs(count / ofThree - 1 / 3) < 0.065, `${count} of ${ofThree}`);
      }
    });

    test('a share of 0.4 lacks a word or has a wrong one, half of them each', () => {
      let shorter = 0;
      let damaged = 0;
      task.demonstrations.forEach(({ completion }, index) => {
        const references = task.trainPrompts[index]?.references ?? [];
        if (references.includes(completion)) return;
        damaged++;
        const words = completion.split(' ');
        // One word off some reference: the same without it at one place on both sides, or the reference without a word.
        const lacks = references.some((text) => without(text).includes(completion));
        const isWrong = references.some(
          (text) =>
            wordsIn(text) === words.length &&
            text.split(' ').filter((word, at) => word !== words[at]).length === 1,
        );
        assert.ok(lacks || isWrong, completion);
        if (lacks) shorter++;
      });
      // A wrong word may give another reference: a synonym, one of 62 words. √(0.24/4000) = 0.0077, five of them (6e-7).
      assert.ok(Math.abs(damaged / 4000 - 0.4) < 0.042, `${damaged}`);
      // √(0.25/1600) = 0.0125; five of them (6e-7), and 0.005 for what is both.
      assert.ok(Math.abs(shorter / damaged - 0.5) < 0.068, `${shorter} of ${damaged}`);
    });

    test('are all damaged with a share of 1, at every place', () => {
      const noisy = translationTask({ seed: 0, noiseShare: 1 });
      let intact = 0;
      const places = new Map<string, number>();
      noisy.demonstrations.forEach(({ completion }, index) => {
        const references = noisy.trainPrompts[index]?.references ?? [];
        if (references.includes(completion)) intact++;
        const words = completion.split(' ');
        const missing = references.map((text) => without(text).indexOf(completion));
        const wrong = references
          .filter((text) => wordsIn(text) === words.length)
          .map((text) => text.split(' '))
          .filter((other) => other.filter((word, at) => word !== words[at]).length === 1)
          .map((other) => other.findIndex((word, at) => word !== words[at]));
        for (const [kind, found] of Object.entries({ missing, wrong })) {
          const place = `${kind} ${found.find((at) => at >= 0)}`;
          places.set(place, (places.get(place) ?? 0) + 1);
        }
      });
      // What gives another reference by chance: one wrong word of 62 is a synonym. The word itself would add 4000 · 0.5/63.
      assert.ok(intact < 25, `${intact}`);
      // A text has 4 to 8 words, so that each of the first four is meant in more than 2000/8 of the cases.
      for (const kind of ['missing', 'wrong']) {
        for (const at of [0, 1, 2, 3]) {
          const count = places.get(`${kind} ${at}`) ?? 0;
          assert.ok(count > 150, `${kind} ${at}: ${count}`);
        }
      }
    });
  });

  test('the order that greedy imitation finds is not the one that references agree on', () => {
    const table = documentFrequencies(problems.map(({ references }) => references));
    const scores = { passive: [] as number[], active: [] as number[] };
    for (const { references } of problems) {
      references.forEach((candidate, index) => {
        const others = references.toSpliced(index, 1);
        const score = ciderD({ candidate, references: others, documentFrequencies: table });
        scores[isPassive(candidate) ? 'passive' : 'active'].push(score);
      });
    }
    // 2.99 and 2.58 with this seed, each a mean over thousands with a standard error below 0.03.
    assert.ok(mean(scores.active) > mean(scores.passive) + 0.3);
    // The likeliest first word is that of the passive: the object with 0.4, a usual quality or adverb with 0.3 · 0.7, and
    // a subject without a quality (one source in nine) with 0.3.
  });

  test('CIDEr-D of answers in one order and usual words is what the documentation says', () => {
    const sets = task.heldOut.map(({ references }) => references);
    const table = documentFrequencies(sets);
    const scoreOf = (order: (words: string[]) => string): string =>
      mean(
        task.heldOut.map(({ prompt, references }) => {
          const [adverb = '', ...others] = prompt
            .slice(0, -1)
            .split(' ')
            .map((word) => MEANINGS.get(word)?.[0] ?? '');
          const [verb = '', object = '', ...agent] = others.reverse();
          // An adjective stands after its noun in the source, and reversed before it.
          const candidate = order([adverb, agent.join(' '), verb, object]);
          return ciderD({ candidate, references, documentFrequencies: table });
        }),
      ).toFixed(2);
    assert.deepEqual(
      {
        passiveLast: scoreOf(
          ([adverb, agent, verb, object]) => `${object} were ${verb} by ${agent} ${adverb}`,
        ),
        passiveInside: scoreOf(
          ([adverb, agent, verb, object]) => `${object} were ${adverb} ${verb} by ${agent}`,
        ),
        activeFirst: scoreOf(
          ([adverb, agent, verb, object]) => `${adverb} ${agent} ${verb} ${object}`,
        ),
        activeLast: scoreOf(
          ([adverb, agent, verb, object]) => `${agent} ${verb} ${object} ${adverb}`,
        ),
      },
      { passiveLast: '3.43', passiveInside: '3.29', activeFirst: '4.11', activeLast: '4.23' },
    );
  });

  test('the seed decides everything, and noiseShare the demonstrations alone', () => {
    const small = { trainCount: 50, heldOutCount: 10 };
    const one = translationTask({ seed: 7, ...small });
    assert.deepEqual(translationTask({ seed: 7, ...small }), one);
    assert.notDeepEqual(translationTask({ seed: 8, ...small }).heldOut, one.heldOut);
    const noisier = translationTask({ seed: 7, ...small, noiseShare: 0.9 });
    assert.deepEqual([noisier.trainPrompts, noisier.heldOut], [one.trainPrompts, one.heldOut]);
    assert.notDeepEqual(noisier.demonstrations, one.demonstrations);
  });

  test('can give every source there is', () => {
    const all = translationTask({ seed: 1, trainCount: 27_000, heldOutCount: 648 });
    const prompts = [...all.trainPrompts, ...all.heldOut].map(({ prompt }) => prompt);
    assert.equal(new Set(prompts).size, 8 * 9 * 8 * 8 * 6);
    assert.ok(prompts.includes('ona dov gub sek='));
    assert.ok(prompts.includes('pam coz ruk hut kab='));
  });

  describe('rejects', () => {
    const cases: [options: TranslationTaskOptions, message: string][] = [
      [{ seed: 0, trainCount: 0 }, 'trainCount to be a positive integer, received 0'],
      [{ seed: 0, heldOutCount: 1.5 }, 'heldOutCount to be a positive integer, received 1.5'],
      [{ seed: 0, noiseShare: -0.1 }, 'noiseShare from 0 to 1, received -0.1'],
      [{ seed: 0, noiseShare: 1.1 }, 'noiseShare from 0 to 1, received 1.1'],
      [{ seed: 0, noiseShare: Number.NaN }, 'noiseShare from 0 to 1, received NaN'],
      [
        { seed: 0, trainCount: 27_000, heldOutCount: 649 },
        'trainCount + heldOutCount of at most 27648, received 27649',
      ],
    ];
    for (const [options, message] of cases) {
      test(message, () => {
        assert.throws(() => translationTask(options), {
          code: 'E_RANGE',
          message: `translationTask: expected ${message}.`,
        });
      });
    }
  });
});

/** The text without one of its words, once for each. */
function without(text: string): string[] {
  const words = text.split(' ');
  return words.map((_, at) => words.toSpliced(at, 1).join(' '));
}
