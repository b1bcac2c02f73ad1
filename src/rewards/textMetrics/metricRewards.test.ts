import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  bleu,
  bleuReward,
  cider,
  ciderD,
  ciderDReward,
  ciderReward,
  documentFrequencies,
  loadReward,
  parseRewardSpec,
  rougeL,
  rougeLReward,
  rougeN,
  rougeNReward,
  scoreCompletions,
  withWeights,
  type NamedReward,
  type RewardFunction,
  type RewardInput,
} from '../index.js';

const input = (completion: string, row: Record<string, unknown>): RewardInput => ({
  ...{ prompt: '', completion, row, finishReason: 'eos', completionTokens: 0 },
});
const candidate = 'the old cat sat';
const references = ['the cat sat down', 'an old cat sat'];
const other = ['dogs bark'];
const table = documentFrequencies([references, other]);

type Factory = (settings: { column?: string }) => RewardFunction;
const REWARDS: Record<string, { factory: Factory; metric: (references: string[]) => number }> = {
  bleuReward: {
    factory: bleuReward,
    metric: (texts) => bleu({ candidate, references: texts }),
  },
  rougeNReward: {
    factory: (settings) => rougeNReward({ n: 2, ...settings }),
    metric: (texts) => rougeN({ candidate, references: texts, n: 2 }).f1,
  },
  rougeLReward: {
    factory: rougeLReward,
    metric: (texts) => rougeL({ candidate, references: texts }).f1,
  },
  ciderReward: {
    factory: (settings) => ciderReward({ documentFrequencies: table, ...settings }),
    metric: (texts) => cider({ candidate, references: texts, documentFrequencies: table }),
  },
  ciderDReward: {
    factory: (settings) => ciderDReward({ documentFrequencies: table, ...settings }),
    metric: (texts) => ciderD({ candidate, references: texts, documentFrequencies: table }),
  },
};

for (const [name, { factory, metric }] of Object.entries(REWARDS)) {
  describe(name, () => {
    const expected = metric(references);

    test('is the metric against the references of the row', () => {
      assert.ok(expected > 0);
      assert.equal(factory({})(input(candidate, { references })), expected);
    });

    test('takes a string for a single reference, and another column', () => {
      const row = { target: 'the old dog', references: 'x' };
      const single = factory({ column: 'target' })(input(candidate, row));
      assert.equal(single, metric(['the old dog']));
      assert.notEqual(single, expected);
    });

    test('throws where the row has no references, which leaves the completion unscored', () => {
      const cases: [row: Record<string, unknown>, received: string][] = [
        [{ prompt: 'x', answer: 'y' }, 'only the columns prompt, answer'],
        [{}, 'only the columns none'],
        [{ references: [] }, '[]'],
        [{ references: ['a', 1] }, '["a",1]'],
        [{ references: null }, 'null'],
        [{ references: 4 }, '4'],
      ];
      for (const [row, received] of cases) {
        assert.throws(() => factory({})(input(candidate, row)), {
          code: 'E_REWARD',
          message: `${name}: expected column "references" to hold a string or an array of strings, received ${received}.`,
        });
      }
    });
  });
}

describe('settings of the rewards', () => {
  test('reach the metrics', () => {
    const row = { references };
    const settings = {
      maxOrder: 2,
      smoothing: 'floor',
      smoothValue: 0.3,
      lowercase: true,
    } as const;
    assert.equal(
      bleuReward(settings)(input('THE OLD cat', row)),
      bleu({ candidate: 'THE OLD cat', references, ...settings }),
    );
    const options = { documentFrequencies: table, maxOrder: 2, sigma: 2 };
    assert.equal(
      ciderDReward(options)(input(candidate, row)),
      ciderD({ candidate, references, ...options }),
    );
    for (const measure of ['precision', 'recall', 'f1'] as const) {
      // Two words of two, of four: the three numbers differ.
      const score = rougeN({ candidate: 'an old', references, n: 1 })[measure];
      assert.equal(rougeNReward({ n: 1, measure })(input('an old', row)), score);
      assert.equal(rougeLReward({ measure })(input('an old', row)), score);
    }
  });

  test('that the metric refuses are refused while the reward is made', () => {
    const wide = { documentFrequencies: table, maxOrder: 5 };
    for (const make of [
      () => bleuReward({ maxOrder: 0 }),
      () => rougeNReward({ n: 0 }),
      () => ciderReward(wide),
      () => ciderDReward(wide),
      () => ciderDReward({ documentFrequencies: table, sigma: 0 }),
    ]) {
      assert.throws(make, { code: 'E_RANGE' });
    }
  });
});

describe('specifications of text metrics', () => {
  const row = { references, target: 'the old dog' };
  const builtin = (spec: string): NamedReward => {
    const parsed = parseRewardSpec(spec);
    assert.ok(parsed.kind === 'builtin');
    return parsed.reward;
  };

  const cases: [
    spec: string,
    expected: (texts: { candidate: string; references: string[] }) => number,
  ][] = [
    ['bleu', bleu],
    ['rouge-1', (texts) => rougeN({ ...texts, n: 1 }).f1],
    ['rouge-2', (texts) => rougeN({ ...texts, n: 2 }).f1],
    ['rouge-l', (texts) => rougeL(texts).f1],
  ];
  for (const [spec, expected] of cases) {
    test(`${spec} and ${spec}:column`, () => {
      const texts = { candidate, references };
      assert.equal(builtin(spec).fn(input(candidate, row)), expected(texts));
      assert.equal(
        builtin(`${spec}:target`).fn(input(candidate, row)),
        expected({ candidate, references: [row.target] }),
      );
      assert.equal(builtin(spec).prepare, undefined);
    });
  }

  for (const [spec, metric] of Object.entries({ 'cider-d': ciderD, cider })) {
    test(`${spec} takes its document frequencies from the rows it is prepared with`, () => {
      const rows = [row, { references: other, target: 'an old dog' }];
      for (const [column, sets] of [
        ['references', [references, other]],
        ['target', [['the old dog'], ['an old dog']]],
      ] as const) {
        const reward = builtin(column === 'references' ? spec : `${spec}:${column}`);
        reward.prepare?.(rows);
        const expected = metric({
          candidate,
          references: sets[0],
          documentFrequencies: documentFrequencies(sets),
        });
        assert.ok(expected > 0);
        assert.equal(reward.fn(input(candidate, row)), expected);
      }
    });

    test(`${spec} forgets the rows that it was prepared with before`, () => {
      const reward = builtin(spec);
      reward.prepare?.(['the cat', 'cat', 'dog'].map((text) => ({ references: text })));
      reward.prepare?.([row, { references: other }]);
      assert.equal(
        reward.fn(input(candidate, row)),
        metric({ candidate, references, documentFrequencies: table }),
      );
    });

    test(`two rewards ${spec} do not share what they are prepared with`, () => {
      const [prepared, bare] = [builtin(spec), builtin(spec)];
      prepared.prepare?.([row, { references: other }]);
      assert.throws(() => bare.fn(input(candidate, row)), { code: 'E_REWARD' });
    });

    test(`${spec} is not scored unprepared`, async () => {
      assert.throws(() => builtin(spec).fn(input(candidate, row)), {
        code: 'E_REWARD',
        message: `${spec}: expected to be prepared with the rows of the data before it scores, but it was not.`,
      });
      const { failures } = await scoreCompletions([builtin(spec)], [input(candidate, row)]);
      assert.match(failures[0]?.reason ?? '', /^threw RewardError: .* to be prepared/);
    });

    test(`${spec} refuses rows that give every n-gram the weight 0`, () => {
      for (const rows of [[], [row], [row, row], [{ references: '' }, { references: ' ' }]]) {
        assert.throws(() => builtin(spec).prepare?.(rows), {
          code: 'E_REWARD',
          message: `${spec}: expected at least 2 rows whose column "references" differs, received ${rows.length} without a difference.`,
        });
      }
    });

    test(`${spec} refuses rows without references, while it is prepared and while it scores`, () => {
      const message = `${spec}: expected column "references" to hold a string or an array of strings, received only the columns answer.`;
      const reward = builtin(spec);
      const bad = { answer: 'x' };
      assert.throws(() => reward.prepare?.([row, bad]), { code: 'E_REWARD', message });
      reward.prepare?.([row, { references: other }]);
      assert.throws(() => reward.fn(input(candidate, bad)), { code: 'E_REWARD', message });
    });
  }

  test('prepare survives loading and weighing', async () => {
    const [reward] = withWeights(await loadReward('cider-d'), { 'cider-d': 0.5 });
    reward?.prepare?.([row, { references: other }]);
    const { scores } = await scoreCompletions(reward ? [reward] : [], [input(candidate, row)]);
    assert.equal(scores[0], 0.5 * ciderD({ candidate, references, documentFrequencies: table }));
  });
});
