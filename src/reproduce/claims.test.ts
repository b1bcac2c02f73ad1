import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { calculatorVerdict, type CalculatorRun } from './calculator.js';
import { comparisonVerdicts, type ComparedRun } from './comparison.js';
import { ladderVerdicts, LADDER, type LadderRun } from './dapoLadder.js';
import { majPassVerdicts, type AtK, type MajPassRun } from './majPass.js';
import { methodsVerdicts, type MethodRun } from './methods.js';
import { optimalPolicyVerdicts, type MethodEnd, type OptimalPolicyRun } from './optimalPolicy.js';
import { overoptimisationVerdicts, type ProxyRun } from './overoptimisation.js';
import { frontierVerdicts, type FrontierRun } from './preferenceFrontier.js';
import { preferenceMethodsVerdict, type PreferenceMethodRun } from './preferenceMethods.js';
import { prmVsOrmVerdicts, type Chooser, type PrmVsOrmRun } from './prmVsOrm.js';
import { scstVerdict, type ScstRun } from './scst.js';
import { stalenessVerdicts, type StaleRun } from './staleness.js';

// Each rule by hand, on numbers that decide it one way and the other.

describe('calculatorVerdict', () => {
  const run = (
    seed: number,
    calls: number,
    rightCalls: number,
    accuracy: number,
  ): CalculatorRun => ({
    ...{ seed, curve: [], seconds: 1 },
    before: { calls: 0.7, rightCalls: 0.4, accuracy: 0.3 },
    after: { calls, rightCalls, accuracy },
  });
  test('needs more calls, more right ones and at least 20 points, on every seed', () => {
    assert.equal(calculatorVerdict([run(0, 1, 0.9, 0.9), run(1, 0.8, 0.5, 0.5)]).seen, 'yes');
    for (const fails of [run(1, 0.7, 0.9, 0.9), run(1, 1, 0.4, 0.9), run(1, 1, 0.9, 0.49)]) {
      assert.equal(calculatorVerdict([fails]).seen, 'no');
      assert.equal(calculatorVerdict([run(0, 1, 0.9, 0.9), fails]).seen, 'partly');
    }
  });
  test('tells the numbers', () => {
    assert.match(
      calculatorVerdict([run(0, 1, 0.9, 0.9)]).because,
      /1 of 1 seeds.*70\.0 → 100\.0 %.*40\.0 → 90\.0 %.*30\.0 → 90\.0 %/,
    );
  });
});

describe('scstVerdict', () => {
  const run = (before: number, after: number): ScstRun => ({
    ...{ seed: 0, curve: [], seconds: 1 },
    before: { ciderD: before, bleu: 0.5, rougeL: 0.5 },
    after: { ciderD: after, bleu: 0.4, rougeL: 0.4 },
  });
  test('CIDEr-D alone decides, seed by seed', () => {
    assert.equal(scstVerdict([run(4, 5), run(4, 4.1)]).seen, 'yes');
    assert.equal(scstVerdict([run(4, 5), run(4, 3)]).seen, 'partly');
    assert.equal(scstVerdict([run(4, 4)]).seen, 'no');
    assert.match(scstVerdict([run(4, 5)]).because, /from 4\.00 to 5\.00, by 1\.00 \(25 %\)/);
  });
});

describe('stalenessVerdicts', () => {
  const run = (method: string, lag: number, seed: number, accuracy: number): StaleRun => ({
    ...{ method, lag, seed, accuracy, bestAccuracy: 1, maxRatioDeviation: 1, meanRatio: 1 },
    ...{ clippedShare: 0, curve: [], seconds: 1 },
  });
  test('compares with GRPO of the same seed, at the largest lag only', () => {
    const runs = [
      ...[run('GRPO', 0, 0, 0.99), run('GRPO', 16, 0, 0.5), run('GRPO', 16, 1, 0.9)],
      ...[run('CISPO', 0, 0, 0.1), run('CISPO', 16, 0, 0.6), run('CISPO', 16, 1, 0.8)],
      ...[run('GSPO', 16, 0, 0.6), run('GSPO', 16, 1, 0.95)],
    ];
    const verdicts = stalenessVerdicts(runs);
    assert.deepEqual(
      verdicts.map(({ rule, seen }) => [/, (\S+) ends/.exec(rule)?.[1], seen]),
      [
        ['CISPO', 'partly'],
        ['GSPO', 'yes'],
      ],
    );
    assert.match(verdicts[0]?.because ?? '', /0\.0 \(-10\.0–10\.0\) points/);
  });
});

describe('majPassVerdicts', () => {
  const estimate = (value: number) => ({ value, low: value - 0.02, high: value + 0.02 });
  const atK = (pass1: number, passMost: number, majorityMost: number): AtK => ({
    pass: { 1: estimate(pass1), 64: estimate(passMost) },
    majority: { 1: estimate(pass1), 64: estimate(majorityMost) },
  });
  const judge = (before: AtK, after: AtK): string[] => {
    const run: MajPassRun = { seed: 0, before, after, seconds: 1 };
    return majPassVerdicts([run], [1, 64]).map(({ seen }) => seen);
  };
  test('Maj@64 above its interval while Pass@64 is not, and Pass@64 that falls by more than its interval', () => {
    assert.deepEqual(judge(atK(0.3, 0.95, 0.4), atK(0.7, 0.9, 0.8)), ['yes', 'yes']);
  });
  test('a Pass@64 that stays shows the first claim and not the second', () => {
    assert.deepEqual(judge(atK(0.3, 0.95, 0.4), atK(0.7, 0.94, 0.8)), ['yes', 'no']);
  });
  test('a Pass@64 that rises, or a Maj@64 within the interval, shows neither', () => {
    assert.deepEqual(judge(atK(0.3, 0.8, 0.4), atK(0.7, 0.9, 0.8)), ['no', 'no']);
    assert.deepEqual(judge(atK(0.3, 0.95, 0.4), atK(0.3, 0.95, 0.43)), ['no', 'no']);
  });
});

describe('ladderVerdicts', () => {
  const run = (rung: string, at: number, values: Partial<LadderRun> = {}): LadderRun => ({
    ...{ rung, seed: 0, accuracy: at, entropy: at, length: 9, truncated: 1 - at, effective: at },
    ...{ rounds: 1, curve: [], seconds: 1, greedy: 0.5, start: { accuracy: 0.05, greedy: 0.6 } },
    ...values,
  });
  const ladder = (values: readonly Partial<LadderRun>[]): LadderRun[] =>
    LADDER.map(([name], index) => run(name, 0.1 * (index + 1), values[index]));
  const seen = (values: readonly Partial<LadderRun>[]): string[] =>
    ladderVerdicts(ladder(values)).map((verdict) => verdict.seen);

  test('a ladder that rises in everything shows every claim', () => {
    assert.deepEqual(seen([]), ['yes', 'yes', 'yes', 'yes', 'yes', 'yes']);
  });
  test('one rung that does not rise is enough against the claim that each adds', () => {
    assert.deepEqual(seen([{}, {}, { accuracy: 0.15 }]), ['yes', 'yes', 'no', 'yes', 'yes', 'yes']);
    const { because } = ladderVerdicts(ladder([{}, {}, { accuracy: 0.15 }]))[2] ?? {};
    assert.match(because ?? '', /3 of 4 steps/);
  });
  test('each of the other claims has its own number', () => {
    assert.deepEqual(seen([{ entropy: 0.3 }]), ['yes', 'yes', 'yes', 'no', 'yes', 'yes']);
    assert.deepEqual(seen([{}, {}, { truncated: 0 }]), ['yes', 'yes', 'yes', 'yes', 'no', 'yes']);
    assert.deepEqual(seen([{}, {}, {}, { effective: 1 }]), [
      'yes',
      'yes',
      'yes',
      'yes',
      'yes',
      'no',
    ]);
    assert.deepEqual(seen([{ accuracy: 0.9 }]), ['yes', 'no', 'no', 'yes', 'yes', 'yes']);
  });
  test('one rung below the fine-tuned model is enough against learning at all', () => {
    const start = { accuracy: 0.4, greedy: 0 };
    assert.equal(seen([{}, {}, {}, { start }])[0], 'no');
    assert.equal(seen([{}, {}, {}, { start: { ...start, accuracy: 0.39 } }])[0], 'yes');
  });
});

describe('methodsVerdicts', () => {
  const run = (method: string, values: Partial<MethodRun>): MethodRun => ({
    ...{ method, seed: 0, curve: [], stepsToTarget: 20, samplesToTarget: 1, secondsToTarget: 1 },
    ...{ accuracy: 1, steps: 60, seconds: 1, peakMegabytes: 100, models: 2, kl: 0, ...values },
  });
  const seen = (...runs: MethodRun[]): string[] => methodsVerdicts(runs).map((one) => one.seen);

  test('memory: less of it and fewer models', () => {
    const ppo = run('ppo', { peakMegabytes: 120, models: 3 });
    assert.deepEqual(seen(run('grpo', {}), ppo), ['yes']);
    assert.deepEqual(seen(run('grpo', { peakMegabytes: 120 }), ppo), ['no']);
    assert.deepEqual(seen(run('grpo', { models: 3 }), ppo), ['no']);
  });
  test('steps: half of those of GRPO, or of all it made where it never got there', () => {
    assert.deepEqual(seen(run('grpo', {}), run('dapo', { stepsToTarget: 10 })), ['yes']);
    assert.deepEqual(seen(run('grpo', {}), run('dapo', { stepsToTarget: 15 })), ['no']);
    assert.deepEqual(seen(run('grpo', { stepsToTarget: null }), run('dapo', {})), ['yes']);
    assert.deepEqual(seen(run('grpo', {}), run('dapo', { stepsToTarget: null })), ['no']);
  });
  test('a claim about a method that was not run is left out', () => {
    assert.deepEqual(seen(run('grpo', {}), run('rloo', {})), []);
  });
});

describe('optimalPolicyVerdicts', () => {
  const end = (values: Partial<MethodEnd> = {}): MethodEnd => ({
    ...{ distance: 1e-10, rewardError: 1e-6, constantError: 1e-6 },
    ...{ kl: 1, reward: 1, entropy: 1, shareOfFrontier: 1, curve: [], ...values },
  });
  const nothing = { logPartitions: [-2, 3] as const, marginError: 1e-12, lossChange: 1e-12 };
  const run = (values: Partial<OptimalPolicyRun> = {}): OptimalPolicyRun => ({
    ...{ seed: 0, dpo: end(), rl: end(), startDistance: 0.5 },
    cancellation: { ...nothing, gradientAtOptimum: 1e-12 },
    ...values,
  });
  const seen = (...runs: OptimalPolicyRun[]): string[] =>
    optimalPolicyVerdicts(runs).map((one) => one.seen);

  test('every bound is met by what lies on it', () => {
    assert.deepEqual(seen(run()), ['yes', 'yes', 'yes', 'yes']);
  });
  test('each method has its own distance', () => {
    assert.deepEqual(seen(run({ dpo: end({ distance: 1.1e-10 }) })), ['no', 'yes', 'yes', 'yes']);
    assert.deepEqual(seen(run({ rl: end({ distance: 1.1e-10 }) })), ['yes', 'no', 'yes', 'yes']);
    assert.deepEqual(seen(run({ rl: end({ distance: NaN }) })), ['yes', 'no', 'yes', 'yes']);
  });
  test('the implicit reward is that of both methods, within a prompt and in its constant', () => {
    for (const values of [{ rewardError: 1.1e-6 }, { constantError: 1.1e-6 }]) {
      for (const of of [{ dpo: end(values) }, { rl: end(values) }]) {
        assert.deepEqual(seen(run(of)), ['yes', 'yes', 'no', 'yes']);
        assert.deepEqual(seen(run(), run(of)), ['yes', 'yes', 'partly', 'yes']);
      }
    }
  });
  test('the partition function has to be gone from margins, loss and gradient', () => {
    for (const name of ['marginError', 'lossChange', 'gradientAtOptimum'] as const) {
      const { cancellation } = run();
      const left = run({ cancellation: { ...cancellation, [name]: 1.1e-12 } });
      assert.deepEqual(seen(left), ['yes', 'yes', 'yes', 'no']);
    }
  });
  test('tells the worst of the seeds', () => {
    const worse = run({ dpo: end({ distance: 3e-9 }), startDistance: 1 });
    const [dpo, rl] = optimalPolicyVerdicts([run(), worse]);
    assert.match(
      dpo?.because ?? '',
      /ended at 3\.0e-9 nats or less, from 0\.75 \(0\.50–1\.00\) nats/,
    );
    assert.match(rl?.because ?? '', /ended at 1\.0e-10 nats or less/);
  });
});

describe('frontierVerdicts', () => {
  const run = (family: FrontierRun['family'], seed: number, share: number): FrontierRun => ({
    ...{ family, seed, share, at: 1, kl: 1, reward: 1 },
  });
  const seen = (...runs: FrontierRun[]): string[] => frontierVerdicts(runs).map((one) => one.seen);
  test('compares mean shares, seed by seed', () => {
    const worse = [
      run('PPO, reward model', 0, 0.5),
      run('PPO, reward model', 0, 0.7),
      run('PPO, true reward', 0, 0.9),
      run('SFT on the best', 0, 0.2),
    ];
    assert.deepEqual(seen(run('DPO', 0, 0.61), ...worse), ['yes', 'no', 'yes']);
    assert.deepEqual(seen(run('DPO', 0, 0.59), ...worse), ['no', 'no', 'yes']);
    const other = worse.map((one) => ({ ...one, seed: 1 }));
    const mixed = [run('DPO', 0, 0.61), run('DPO', 1, 0.1), ...worse, ...other];
    assert.deepEqual(seen(...mixed), ['partly', 'no', 'partly']);
  });
  test('tells the numbers', () => {
    const [first] = frontierVerdicts([run('DPO', 0, 0.5), run('PPO, reward model', 0, 0.4)]);
    assert.equal(
      first?.because,
      'the mean share is 50.0 % with DPO and 40.0 % with PPO, reward model',
    );
  });
});

describe('overoptimisationVerdicts', () => {
  const run = (hasKl: boolean, golds: number[], proxies = golds.map((_, at) => at)): ProxyRun => ({
    ...{ seed: 0, hasKl, klCoef: hasKl ? 0.5 : 1e-6, agreement: 0.6 },
    curve: golds.map((gold, step) => ({ step, kl: step, proxy: proxies[step] ?? NaN, gold })),
  });
  const seen = (...runs: ProxyRun[]): string[] =>
    overoptimisationVerdicts(runs).map((one) => one.seen);
  test('turning over is to end more than a tenth of the gain below the highest', () => {
    const held = run(true, [0, 1, 0.95]);
    assert.deepEqual(seen(run(false, [0, 1, 0.89]), held), ['yes', 'yes']);
    assert.deepEqual(seen(run(false, [0, 1, 0.91]), held), ['no', 'yes']);
    assert.deepEqual(seen(run(false, [0, 1, 0.5]), run(true, [0, 1, 0.5])), ['yes', 'no']);
  });
  test('a reward that never rose has not turned over', () => {
    assert.deepEqual(seen(run(false, [1, 0.5, 0.2]), run(true, [1, 0.5, 0.2])), ['no', 'yes']);
  });
  test('the learned reward must have gone on rising', () => {
    assert.equal(seen(run(false, [0, 1, 0.5], [0, 2, 1]), run(true, [0, 1, 1]))[0], 'no');
  });
});

describe('comparisonVerdicts', () => {
  const run = (method: ComparedRun['method'], values: Partial<ComparedRun>): ComparedRun => ({
    ...{ method, seed: 0, kl: 1, reward: 1, share: 0.5, steps: 1, secondsPerStep: 1 },
    ...{ samples: 1, peakMegabytes: 100, ...values },
  });
  const seen = (sft: object, dpo: object, ppo: object, grpo: object): string[] =>
    comparisonVerdicts([
      ...[run('sft', sft), run('dpo', dpo), run('ppo', ppo), run('grpo', grpo)],
    ]).map((one) => one.seen);
  test('memory is less where it is less', () => {
    const ppo = { peakMegabytes: 120 };
    assert.deepEqual(seen({}, {}, ppo, {}).slice(0, 2), ['yes', 'yes']);
    assert.deepEqual(seen({}, ppo, ppo, {}).slice(0, 2), ['yes', 'no']);
    assert.deepEqual(seen({}, {}, ppo, { peakMegabytes: 121 }).slice(0, 2), ['no', 'yes']);
  });
  test('SFT on the best must be below each of the others', () => {
    assert.equal(seen({ share: 0.4 }, {}, {}, {})[2], 'yes');
    assert.equal(seen({ share: 0.4 }, {}, { share: 0.3 }, {})[2], 'no');
  });
});

describe('preferenceMethodsVerdict', () => {
  const run = (seed: number, reward: number): PreferenceMethodRun => ({
    ...{ method: 'kto', seed, reward, before: 0.2, kl: 1, share: 0.5, agreement: null },
  });
  test('every run must be above its reference', () => {
    assert.equal(preferenceMethodsVerdict([run(0, 0.3), run(1, 0.21)]).seen, 'yes');
    assert.equal(preferenceMethodsVerdict([run(0, 0.3), run(1, 0.2)]).seen, 'partly');
    assert.equal(preferenceMethodsVerdict([run(0, 0.3), run(0, 0.1)]).seen, 'no');
  });
  test('tells the gains', () => {
    const { because } = preferenceMethodsVerdict([run(0, 0.3), run(1, 0.5)]);
    assert.equal(because, 'the true reward rose by 0.20 (0.10–0.30) (kto)');
  });
});

describe('prmVsOrmVerdicts', () => {
  /** Shares of right answers at n = 1, 4 and 64 of four problems; sound ones are a share of these. */
  type Given = Partial<Record<Chooser, readonly [one: number, few: number, most: number]>>;
  const run = (given: Given, soundShare: Given = {}): PrmVsOrmRun => {
    const byN = (chooser: Chooser) =>
      Object.fromEntries(
        [1, 4, 64].map((n, at) => {
          const share = given[chooser]?.[at] ?? 0.5;
          // Not all the same, so that means are taken.
          const right = [share - 0.1, share + 0.1, share - 0.1, share + 0.1];
          const sound = right.map((value) => value * (soundShare[chooser]?.[at] ?? 1));
          return [n, { right, sound }];
        }),
      );
    return {
      ...{ seed: 0, completions: 1, pairedCompletions: 1, pairs: 1 },
      ...{ stepAccuracy: 1, pairAccuracy: 1 },
      chosen: {
        ...{ ORM: byN('ORM'), 'PRM, product': byN('PRM, product'), 'PRM, min': byN('PRM, min') },
        ...{ 'PRM, last': byN('PRM, last'), majority: byN('majority'), oracle: byN('oracle') },
      },
    };
  };
  const seen = (...runs: PrmVsOrmRun[]): string[] =>
    prmVsOrmVerdicts(runs, [1, 4, 64]).map((one) => one.seen);
  const PRM = 'PRM, product';

  test('the PRM must lead at the largest n', () => {
    assert.equal(seen(run({ [PRM]: [0.5, 0.5, 0.6] }))[0], 'yes');
    assert.equal(seen(run({ [PRM]: [0.5, 0.9, 0.5] }))[0], 'no');
    assert.equal(seen(run({ [PRM]: [0.5, 0.5, 0.4] }))[0], 'no');
    assert.equal(seen(run({ ORM: [0.5, 0.5, 0.4] }), run({}))[0], 'partly');
  });
  test('a lead within its interval is none', () => {
    const narrow = run({ [PRM]: [0.5, 0.5, 0.52] });
    assert.equal(seen(narrow)[0], 'yes');
    // One problem decides it: the others are a little against it.
    const right = [0.9, 0.35, 0.55, 0.35];
    const wide = {
      ...narrow.chosen,
      [PRM]: { ...narrow.chosen[PRM], 64: { right, sound: right } },
    };
    assert.equal(seen({ ...narrow, chosen: wide })[0], 'no');
  });
  test('the lead grows where it is larger at the largest n than at the smallest above 1', () => {
    assert.equal(seen(run({ [PRM]: [0.9, 0.6, 0.7] }))[1], 'yes');
    assert.equal(seen(run({ [PRM]: [0.1, 0.7, 0.7] }))[1], 'no');
    assert.equal(seen(run({ [PRM]: [0.5, 0.7, 0.6] }))[1], 'no');
    assert.equal(seen(run({ ORM: [0.5, 0.7, 0.6] }))[1], 'yes');
  });
  test('product and minimum may differ by two points, either way', () => {
    assert.equal(seen(run({ 'PRM, min': [0.5, 0.1, 0.515] }))[2], 'yes');
    assert.equal(seen(run({ 'PRM, min': [0.5, 0.5, 0.53] }))[2], 'no');
    assert.equal(seen(run({ 'PRM, min': [0.5, 0.5, 0.47] }))[2], 'no');
  });
  test('wrong ways must be less than half as frequent among the PRM’s right answers', () => {
    const of = (prm: number, orm: number): string | undefined =>
      seen(run({ ORM: [0.5, 0.5, 0.9] }, { [PRM]: [1, 0, prm], ORM: [1, 1, orm] }))[3];
    assert.equal(of(0.91, 0.8), 'yes');
    assert.equal(of(0.89, 0.8), 'no');
    assert.equal(of(1, 1), 'no');
  });
  test('final answers are about as often right within two points', () => {
    assert.equal(seen(run({ [PRM]: [0.5, 0.9, 0.515] }))[4], 'yes');
    assert.equal(seen(run({ [PRM]: [0.5, 0.5, 0.53] }))[4], 'no');
    assert.equal(seen(run({ [PRM]: [0.5, 0.5, 0.47] }))[4], 'no');
  });
  test('both must beat the vote', () => {
    const both = { [PRM]: [0.5, 0.5, 0.6], ORM: [0.5, 0.5, 0.6] } as const;
    assert.equal(seen(run(both))[5], 'yes');
    assert.equal(seen(run({ ...both, ORM: [0.5, 0.9, 0.5] }))[5], 'no');
    assert.equal(seen(run({ ...both, [PRM]: [0.5, 0.9, 0.5] }))[5], 'no');
  });
  test('tells the numbers', () => {
    const [beats, grows, , ways] = prmVsOrmVerdicts(
      [
        run(
          { [PRM]: [0.5, 0.6, 0.8], ORM: [0.5, 0.55, 0.5] },
          { [PRM]: [1, 1, 0.95], ORM: [0.7, 1, 0.6] },
        ),
      ],
      [1, 4, 64],
    );
    assert.equal(
      beats?.because,
      'best-of-64 is right for 80.0 % by the PRM and 50.0 % by the ORM, a difference of 30.0 [30.0, 30.0] points',
    );
    assert.equal(
      grows?.because,
      'by n = 1, 4, 64 the lead is 0.0, 5.0, 30.0 points; from 4 to 64 it changes by 25.0 [25.0, 25.0]',
    );
    assert.equal(
      ways?.because,
      'of the right answers chosen from 64, 5.0 % have a wrong or missing step by the PRM and 40.0 % by the ORM, where 30.0 % of all right samples do',
    );
  });
});
