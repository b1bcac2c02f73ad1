import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { workedSumSteps } from '../tasks/index.js';
import { chosenFrom } from './prmVsOrm.js';
import { pairsOf, stepRows, type JudgedSample, type ScoredSample } from './verifiers.js';

const PROMPT = '08+07+05=';

/** 8 + 7 + 5: 15, 20. */
const judged = (text: string, prompt = PROMPT): JudgedSample => ({
  ...{ prompt, answer: '20', text, promptIds: [1], tokenIds: [2] },
  ...workedSumSteps(prompt, text),
});

const scored = (text: string, [orm, product, min, last]: readonly number[]): ScoredSample => ({
  ...judged(text),
  scores: {
    ...{ ORM: orm ?? NaN, 'PRM, product': product ?? NaN },
    ...{ 'PRM, min': min ?? NaN, 'PRM, last': last ?? NaN },
  },
});

describe('chosenFrom', () => {
  const groups = [
    [
      scored('15;20', [0.1, 0.9, 0.3, 0.1]), // right
      scored('05;20', [0.9, 0.2, 0.2, 0.4]), // right by a wrong way
      scored('15;10', [0.2, 0.1, 0.9, 0.3]), // wrong
      scored('05;10', [0.3, 0.3, 0.1, 0.9]), // wrong
    ],
    ['15;10', '05;10', '15;10', '15;25'].map((text, at) => scored(text, [at, at, at, at])),
  ];
  const chosen = chosenFrom(groups, [1, 2, 4]);

  test('of all samples each verifier takes the one that scores highest by its own score', () => {
    const of = (name: 'ORM' | 'PRM, product' | 'PRM, min' | 'PRM, last'): unknown => [
      chosen[name][4]?.right[0],
      chosen[name][4]?.sound?.[0],
    ];
    assert.deepEqual(of('ORM'), [1, 0]);
    assert.deepEqual(of('PRM, product'), [1, 1]);
    assert.deepEqual(of('PRM, min'), [0, 0]);
    assert.deepEqual(of('PRM, last'), [0, 0]);
  });

  test('of two it is the mean over the six pairs', () => {
    // By the ORM the second is the best of three pairs, the last of two, the third of one: right in 3 of 6.
    expectClose(chosen.ORM[2]?.right[0] ?? NaN, 0.5);
    expectClose(chosen.ORM[2]?.sound?.[0] ?? NaN, 0);
    // By the product the first is the best of three pairs, the last of two, the second of one.
    expectClose(chosen['PRM, product'][2]?.right[0] ?? NaN, 4 / 6);
    expectClose(chosen['PRM, product'][2]?.sound?.[0] ?? NaN, 0.5);
  });

  test('of one sample every chooser has the share of all', () => {
    for (const of of Object.values(chosen)) assert.deepEqual(of[1]?.right, [0.5, 0]);
    assert.deepEqual(chosen.ORM[1]?.sound, [0.25, 0]);
  });

  test('the vote is on answers, of which two right and two wrong are a tie; the oracle needs one that is right', () => {
    expectClose(chosen.majority[4]?.right[0] ?? NaN, 0.5);
    // Of the six pairs one has two right answers, one two wrong ones, and four have one of each.
    expectClose(chosen.majority[2]?.right[0] ?? NaN, 0.5);
    expectClose(chosen.oracle[2]?.right[0] ?? NaN, 5 / 6);
    expectClose(chosen.oracle[4]?.right[0] ?? NaN, 1);
    assert.deepEqual([chosen.majority[4]?.right[1], chosen.oracle[4]?.right[1]], [0, 0]);
    assert.deepEqual([chosen.majority[4]?.sound, chosen.oracle[4]?.sound], [null, null]);
  });
});

describe('what both reward models are trained on', () => {
  const groups = [
    ['15;20', '05;20', '15;10', '05;10'].map((text) => judged(text)),
    [judged('03;05', '01+02+02='), judged('03;06', '01+02+02='), judged('03;05', '01+02+02=')],
    [judged('15;20')],
  ];

  test('a row of steps for every completion, wrong from the first mistake on', () => {
    assert.deepEqual(stepRows(groups).slice(0, 4), [
      { prompt: PROMPT, completions: ['15', '20'], labels: [true, true] },
      { prompt: PROMPT, completions: ['05', '20'], labels: [false, false] },
      { prompt: PROMPT, completions: ['15', '10'], labels: [true, false] },
      { prompt: PROMPT, completions: ['05', '10'], labels: [false, false] },
    ]);
    assert.equal(stepRows(groups).length, 8);
  });

  test('a pair for every right and wrong completion of a prompt, whatever their steps', () => {
    const pair = (prompt: string, chosen: string, rejected: string) => ({
      ...{ prompt, chosen, rejected, comparison: prompt },
    });
    assert.deepEqual(pairsOf(groups), [
      pair(PROMPT, '15;20', '15;10'),
      pair(PROMPT, '15;20', '05;10'),
      pair(PROMPT, '05;20', '15;10'),
      pair(PROMPT, '05;20', '05;10'),
      pair('01+02+02=', '03;05', '03;06'),
      pair('01+02+02=', '03;05', '03;06'),
    ]);
  });
});
