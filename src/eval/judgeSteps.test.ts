import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { tinyModel, tinySteps, tinyTokenizer } from '../../test/tinyRun.js';
import { rowsFromObjects, type StepExample } from '../data/index.js';
import { DataError, NumericsError, ShapeError, ValueRangeError } from '../errors/index.js';
import { createStepModel, type StepModel } from '../models/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { memory, noGrad, tensor, tidy } from '../torch/index.js';
import {
  aggregateSteps,
  evaluateSteps,
  judgeSteps,
  scoreSteps,
  stepLogOdds,
  stepMetrics,
  wilsonInterval,
} from './index.js';

const made = (): StepModel =>
  createStepModel(tinyModel({ dtype: 'float64' }), { std: 0.4, seed: 3, stepSeparator: ':' });
const model = made();
const tokenizer = tinyTokenizer();
const EXACT = { rtol: 1e-10 };

/** log p/(1 − p) at the last of these tokens, read alone. */
function oddsAlone(ids: readonly number[]): number {
  return noGrad(() =>
    tidy(() => {
      const { logits } = model.forward({ inputIds: tensor([[...ids]], { dtype: 'int64' }) });
      const [wrong, right] = logits.select(1, ids.length - 1).toTypedArray();
      return { odds: Number(right) - Number(wrong) };
    }),
  ).odds;
}
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
/** The probability of the step that ends this text. */
const scoreOf = (text: string): number => sigmoid(oddsAlone(tokenizer.encode(text)));
const mean = (values: readonly number[]): number =>
  values.reduce((sum, x) => sum + x, 0) / values.length;

describe('stepLogOdds', () => {
  test('gives every step what it has alone, whatever stands beside it', () => {
    const [first, ...others] = tinySteps();
    assert.ok(first, 'an example');
    const rows = [first, { inputIds: [4, 5], stepEnds: [], promptLength: 1 }, ...others];
    const expected = rows.map(({ inputIds, stepEnds }) =>
      stepEnds.map((end) => oddsAlone(inputIds.slice(0, end + 1))),
    );
    for (const budget of [1, 17, 4096]) {
      const found = stepLogOdds(model, rows, budget);
      assert.deepEqual(
        found.map((row) => row.length),
        expected.map((row) => row.length),
      );
      expectClose(found.flat(), expected.flat(), EXACT);
    }
  });
  test('keeps no tensor', () => {
    const before = memory().liveTensors;
    stepLogOdds(model, tinySteps());
    evaluateSteps({ model, examples: tinySteps() });
    judgeSteps({ model, tokenizer, rows: rowsFromObjects([{ prompt: 'a' }]), completions: ['x'] });
    scoreSteps({ model, tokenizer, prompts: ['a'], completions: ['x'], kind: 'min' });
    assert.equal(memory().liveTensors, before);
  });
});

describe('judgeSteps', () => {
  const rows = rowsFromObjects([{ prompt: 'ab:' }, { prompt: 'c:' }, { prompt: 'd:' }]);
  test('cuts completions at the model’s separator and judges each step as in training', () => {
    const judged = judgeSteps({ model, tokenizer, rows, completions: ['x:yz:', 'z', '::'] });
    assert.deepEqual(
      judged.map((steps) => steps.map(({ text, end }) => [text, end])),
      [
        [
          ['x', 2],
          ['yz', 5],
        ],
        // The separator that it lacks is put after the last step, as in training.
        [['z', 1]],
        [],
      ],
    );
    expectClose(
      judged.flat().map(({ score }) => score),
      [scoreOf('ab:x:'), scoreOf('ab:x:yz:'), scoreOf('c:z:')],
      EXACT,
    );
  });
  test('another separator cuts elsewhere', () => {
    const judged = judgeSteps({
      model,
      tokenizer,
      rows: rows.slice(0, 1),
      completions: ['xy:zyx'],
      separator: 'y',
    });
    assert.deepEqual(
      judged[0]?.map(({ text, end }) => [text, end]),
      [
        ['x', 2],
        [':z', 5],
        ['x', 6],
      ],
    );
    expectClose(
      judged.flat().map(({ score }) => score),
      [scoreOf('ab:xy'), scoreOf('ab:xy:zy'), scoreOf('ab:xy:zyxy')],
      EXACT,
    );
  });
  test('rejects other numbers of prompts and completions, rows without a prompt, a broken model', () => {
    assert.throws(
      () => judgeSteps({ model, tokenizer, rows, completions: ['x'] }),
      new ShapeError('judgeSteps: expected as many prompts as completions, received 3 and 1.'),
    );
    assert.throws(
      () =>
        judgeSteps({
          model,
          tokenizer,
          rows: rowsFromObjects([{ text: 'a' }]),
          completions: ['x'],
        }),
      DataError,
    );
    const broken = made();
    noGrad(() => broken.head.weight.fill_(NaN));
    assert.throws(
      () => judgeSteps({ model: broken, tokenizer, rows: rows.slice(0, 1), completions: ['x'] }),
      new NumericsError(
        'judgeSteps: expected probabilities, but the process reward model gave NaN.',
        { hint: 'Load it with dtype float32, or look at its training.' },
      ),
    );
  });
});

describe('scoreSteps', () => {
  const score = (kind: 'product' | 'min' | 'last', completions = ['x:y:z', 'z', ':']) =>
    scoreSteps({
      model,
      tokenizer,
      prompts: ['ab:', 'c:', 'd:'].slice(0, completions.length),
      completions,
      kind,
    });
  const first = ['ab:x:', 'ab:x:y:', 'ab:x:y:z:'].map(scoreOf);
  const only = scoreOf('c:z:');
  test('the product, the smallest and the last of the steps; NaN of no step', () => {
    const [a = NaN, b = NaN, c = NaN] = first;
    assert.ok(
      new Set([Math.min(a, b, c), c, a * b * c]).size === 3,
      `three different answers of ${first.join(', ')}`,
    );
    const nan = { ...EXACT, nanIsEqual: true };
    expectClose(score('product'), [a * b * c, only, NaN], nan);
    expectClose(score('min'), [Math.min(a, b, c), only, NaN], nan);
    expectClose(score('last'), [c, only, NaN], nan);
  });
  test('of nothing but empty completions, and of none', () => {
    expectClose(score('min', [':']), [NaN], { nanIsEqual: true });
    assert.deepEqual(score('min', []), []);
  });
  test('of more completions than a function takes arguments', () => {
    const steps = [{ text: 'a', end: 1, score: 0.25 }];
    const scores = aggregateSteps(
      Array.from({ length: 200_000 }, () => steps),
      'product',
    );
    assert.equal(scores.length, 200_000);
    assert.equal(scores.at(-1), 0.25);
  });

  test('a conversation is written by the chat template', () => {
    const withTemplate = Object.create(tokenizer) as Tokenizer;
    withTemplate.applyChatTemplate = (messages, options) =>
      `${messages.map(({ content }) => String(content)).join('')}${options?.addGenerationPrompt === true ? ':' : ''}`;
    const [found] = scoreSteps({
      model,
      tokenizer: withTemplate,
      prompts: [[{ role: 'user', content: 'c' }]],
      completions: ['z'],
      kind: 'last',
    });
    expectClose(found ?? NaN, only, EXACT);
  });
  test('rejects an unknown kind', () => {
    assert.throws(
      () =>
        scoreSteps({
          model,
          tokenizer,
          prompts: ['a'],
          completions: ['x'],
          kind: 'mean' as unknown as 'min',
        }),
      new ValueRangeError(
        'aggregateStepScores: expected kind to be product, min or last, received "mean".',
      ),
    );
  });
});

describe('evaluateSteps', () => {
  const examples = tinySteps();
  const steps = examples.flatMap(({ inputIds, stepEnds, labels }, row) =>
    labels.map((label, at) => {
      const p = sigmoid(oddsAlone(inputIds.slice(0, (stepEnds[at] ?? 0) + 1)));
      return { row, label, p, hit: p > 0.5 === label ? 1 : 0 };
    }),
  );
  test('everything by its formula', () => {
    const found = evaluateSteps({ model, examples, seed: 4 });
    const hits = steps.map(({ hit }) => hit);
    assert.ok(mean(hits) > 0 && mean(hits) < 1, 'some right, some wrong');
    const close = (value: number | undefined, expected: number): void =>
      expectClose(value ?? NaN, expected, EXACT);
    assert.deepEqual([found.examples, found.steps], [5, 10]);
    close(found.loss, mean(steps.map(({ label, p }) => -Math.log(label ? p : 1 - p))));
    close(found.accuracy, mean(hits));
    close(found.rightShare, 0.6);
    close(found.rightProbability, mean(steps.filter(({ label }) => label).map(({ p }) => p)));
    close(found.wrongProbability, mean(steps.filter(({ label }) => !label).map(({ p }) => p)));
    const shares = examples.map((_, row) =>
      mean(steps.filter((step) => step.row === row).map(({ hit }) => hit)),
    );
    close(found.rowAccuracy.value, mean(shares));
    assert.notEqual(found.rowAccuracy.value, found.accuracy);
    assert.ok(found.rowAccuracy.low <= mean(shares), 'the interval holds the mean');
    assert.ok(found.rowAccuracy.high >= mean(shares), 'the interval holds the mean');
    const whole = shares.filter((share) => share === 1).length;
    assert.deepEqual(found.wholeRows, wilsonInterval(whole, 5));
    // Ten bins from ½ to 1: Σ |Σ (hit − confidence)| / n.
    const gaps = new Map<number, number>();
    for (const { p, hit } of steps) {
      const confidence = Math.max(p, 1 - p);
      const bin = Math.min(9, Math.floor((confidence - 0.5) * 20));
      gaps.set(bin, (gaps.get(bin) ?? 0) + hit - confidence);
    }
    close(found.calibrationError, mean([...gaps.values()].map(Math.abs)) * (gaps.size / 10));
  });
  test('the first error of a row is found where nothing before it is judged wrong, and it is', () => {
    const { firstErrors, rightRows, firstErrorF1 } = evaluateSteps({ model, examples });
    const firstOf = (flags: readonly boolean[]): number => flags.indexOf(true);
    const found = examples.map(({ labels }, row) => ({
      isFaulty: labels.includes(false),
      isFound:
        firstOf(labels.map((label) => !label)) ===
        firstOf(steps.filter((step) => step.row === row).map(({ p }) => p < 0.5)),
    }));
    const shareOf = (isFaulty: boolean) => {
      const some = found.filter((row) => row.isFaulty === isFaulty);
      return wilsonInterval(some.filter(({ isFound }) => isFound).length, some.length);
    };
    assert.deepEqual([firstErrors, rightRows], [shareOf(true), shareOf(false)]);
    const [a, b] = [shareOf(true).value, shareOf(false).value];
    expectClose(firstErrorF1 ?? NaN, a + b === 0 ? 0 : 2 / (1 / a + 1 / b), EXACT);
  });
  test('first errors by hand: too early, too late, found, none of none', () => {
    const odds = [
      [[1, -1, -1], 'TFF'], // found, whatever follows
      [[-1, -1, 1], 'TFT'], // too early
      [[1, 1, -1], 'TFF'], // too late
      [[1, 1, 1], 'TTF'], // not at all
      [[0.1, 1], 'TT'], // rightly none
      [[0, 1], 'TT'], // a step that is neither is not judged wrong
      [[1, -1], 'TT'], // one where none is
    ] as const;
    const values = [1, -1, 0.1, 0];
    const rows = odds.map(([given, labels]) => ({
      inputIds: given.map((value) => values.indexOf(value)),
      stepEnds: given.map((_, step) => step),
      promptLength: 0,
      labels: labels.split('').map((label) => label === 'T'),
      row: rowsFromObjects([{}])[0] ?? assert.fail('a row'),
    }));
    // The states are the log-odds that the ids stand for, and the head passes them on.
    const fake = made();
    const width = fake.config.hiddenSize;
    noGrad(() => {
      fake.head.weight.zero_();
      fake.head.weight.select(0, 1).select(0, 0).fill_(1);
    });
    fake.trunk.hiddenStates = ({ inputIds }) =>
      tensor(
        Array.from(inputIds.toTypedArray(), Number).flatMap((id) =>
          Array.from({ length: width }, (_, at) => (at === 0 ? (values[id] ?? NaN) : 0)),
        ),
        { shape: [...inputIds.shape, width], dtype: 'float64' },
      );
    const found = evaluateSteps({ model: fake, examples: rows });
    assert.deepEqual(found.firstErrors, wilsonInterval(1, 4));
    assert.deepEqual(found.rightRows, wilsonInterval(2, 3));
    expectClose(found.firstErrorF1 ?? NaN, 2 / (4 + 3 / 2), EXACT);
  });
  test('reads no more tokens at once than it may, to the same result', () => {
    const watched = made();
    const sizes: number[] = [];
    const read = watched.trunk.hiddenStates.bind(watched.trunk);
    watched.trunk.hiddenStates = (input) => {
      sizes.push(input.inputIds.numel);
      return read(input);
    };
    const whole = evaluateSteps({ model: watched, examples });
    assert.equal(sizes.length, 1);
    const parts = evaluateSteps({ model: watched, examples, microBatchTokens: 12 });
    assert.ok(Math.max(...sizes.slice(1)) <= 12, `micro-batches of ${sizes.join(', ')} tokens`);
    expectClose(parts.loss, whole.loss, EXACT);
  });
  test('steps at exactly ½ are half right, and no probability is told of a class without steps', () => {
    const flat = createStepModel(tinyModel({ dtype: 'float64' }));
    const right = examples.filter(({ labels }) => !labels.includes(false));
    const found = evaluateSteps({ model: flat, examples: right });
    assert.deepEqual([found.accuracy, found.rightProbability], [0.5, 0.5]);
    assert.equal(found.wrongProbability, undefined);
    expectClose(found.loss, Math.LN2, EXACT);
    assert.deepEqual(found.wholeRows, wilsonInterval(0, right.length));
  });
  test('as metrics of a run: intervals as two numbers, nothing that is not there', () => {
    const right = examples.filter(({ labels }) => !labels.includes(false));
    const metrics = stepMetrics(evaluateSteps({ model, examples: right }));
    assert.deepEqual(Object.keys(metrics).sort(), [
      'accuracy',
      'calibrationError',
      'loss',
      'rightProbability',
      'rightRows',
      'rightRowsHigh',
      'rightRowsLow',
      'rightShare',
      'rowAccuracy',
      'rowAccuracyHigh',
      'rowAccuracyLow',
      'wholeRows',
      'wholeRowsHigh',
      'wholeRowsLow',
    ]);
    const order = (name: string) =>
      ['Low', '', 'High'].map((end) => metrics[`${name}${end}`] ?? NaN);
    for (const [low = NaN, value = NaN, high = NaN] of [order('wholeRows'), order('rowAccuracy')])
      assert.ok(low < high && low <= value && value <= high, `${low} ≤ ${value} ≤ ${high}`);
    assert.ok(
      Object.values(metrics).every((value) => Number.isFinite(value)),
      'finite numbers',
    );
  });
  test('a model that is sure and wrong has a finite loss', () => {
    const sure = made();
    noGrad(() => sure.head.weight.mul_(1e4));
    const { loss } = evaluateSteps({ model: sure, examples });
    assert.ok(Number.isFinite(loss) && loss > 100, `a loss of ${loss}`);
  });
  test('rejects nothing to measure, and a broken model', () => {
    assert.throws(
      () => evaluateSteps({ model, examples: [] as StepExample[] }),
      new ValueRangeError('evaluateSteps: expected at least one example, received none.'),
    );
    const broken = made();
    noGrad(() => broken.head.weight.fill_(NaN));
    assert.throws(
      () => evaluateSteps({ model: broken, examples }),
      new NumericsError('evaluateSteps: expected probabilities, but the model gave NaN.', {
        hint: 'Load it with dtype float32, or look at its training.',
      }),
    );
  });
});
