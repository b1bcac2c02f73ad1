import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { reproduceComparison, type ComparedRun } from './comparison.js';
import { reproduceCalculator } from './calculator.js';
import { LADDER, reproduceDapoLadder } from './dapoLadder.js';
import type { Reproduction } from './experiment.js';
import { reproduceMajPass } from './majPass.js';
import { reproduceOveroptimisation, type ProxyRun } from './overoptimisation.js';
import { reproduceFrontier, type FrontierRun } from './preferenceFrontier.js';
import { reproduceMethods, type MethodRun } from './methods.js';
import { reproduceOptimalPolicy, type OptimalPolicyRun } from './optimalPolicy.js';
import { reproducePreferenceMethods, type PreferenceMethodRun } from './preferenceMethods.js';
import { reproducePrmVsOrm } from './prmVsOrm.js';
import { reproduceScst } from './scst.js';
import { tinyDecoder } from './settings.js';
import { reproduceStaleness } from './staleness.js';
import { drawProblem, optimumOf, policyGradientObjective, trainTable } from './tabular.js';

// Every experiment from its first file to its last, with a model of a few thousand parameters and two steps. Whether a
// claim was seen means nothing here.

const base = mkdtempSync(join(tmpdir(), 'posttrain-reproduce-'));
after(() => rmSync(base, { recursive: true, force: true }));

const SFT = ['maxSteps=2', 'batchSize=4', 'warmupSteps=0'];
const GRPO = ['steps=2', 'promptsPerStep=2', 'groupSize=2', 'evalEvery=1'];

/** Checks the three files, and gives what results.json tells of the runs. */
function requireWritten(result: Reproduction | NodeJS.Signals, name: string): unknown[] {
  assert.ok(typeof result === 'object');
  const { directory, report, verdicts } = result;
  assert.equal(result.name, name);
  assert.equal(readFileSync(join(directory, 'report.md'), 'utf8'), report);
  assert.match(readFileSync(join(directory, 'plot.svg'), 'utf8'), /^<svg [\s\S]*<\/svg>\s*$/);
  const results = JSON.parse(readFileSync(join(directory, 'results.json'), 'utf8')) as {
    seeds: number[];
    commit: string | null;
    versions: { libtorch: string };
    verdicts: unknown[];
    data: { runs: unknown[] };
  };
  assert.deepEqual(results.verdicts, verdicts);
  assert.ok(verdicts.length > 0 && results.versions.libtorch.length > 0);
  assert.match(report, /The paper claims that .*\n\n\*\*Seen here: (yes|no|partly)\*\*, because/);
  return results.data.runs;
}

describe('every experiment runs from its first file to its last', () => {
  test('calculator', async () => {
    const out = join(base, 'calculator');
    const result = await reproduceCalculator(
      { out, seeds: [3, 4], progress: null },
      {
        ...{ model: tinyDecoder(64), trainCount: 16, heldOutCount: 6 },
        ...{ sft: SFT, grpo: GRPO },
      },
    );
    const runs = requireWritten(result, 'calculator') as { seed: number; curve: object[] }[];
    assert.deepEqual(
      runs.map(({ seed, curve }) => [seed, curve.length]),
      [
        [3, 3],
        [4, 3],
      ],
    );
    assert.ok(existsSync(join(out, 'seed-4', 'grpo', 'model', 'model.safetensors')));
  });

  test('scst', async () => {
    const out = join(base, 'scst');
    const result = await reproduceScst(
      { out, seeds: [0], progress: null },
      {
        ...{ model: tinyDecoder(80), trainCount: 16, heldOutCount: 6, maxNewTokens: 8 },
        sft: SFT,
        scst: ['steps=2', 'promptsPerStep=4', 'evalEvery=1', 'sampling.maxNewTokens=8'],
      },
    );
    assert.equal(requireWritten(result, 'scst').length, 1);
  });

  test('staleness', async () => {
    const out = join(base, 'staleness');
    const methods = ['GRPO', 'GRPO with truncated importance weights', 'GSPO', 'CISPO'];
    const result = await reproduceStaleness(
      { out, seeds: [0], progress: null },
      {
        ...{ model: tinyDecoder(64), trainCount: 16, heldOutCount: 6 },
        ...{ lags: [0, 1], methods, sft: SFT, grpo: GRPO },
      },
    );
    assert.equal(requireWritten(result, 'staleness').length, 2 * methods.length);
  });
});

describe('the exact ones', () => {
  test('optimal-policy', async () => {
    const out = join(base, 'optimal-policy');
    const problem = {
      ...{ completions: [2, 3], beta: 0.5 },
      ...{ rewardSpread: 0.5, offsetSpread: 3, logitSpread: 0.5 },
    };
    const result = await reproduceOptimalPolicy(
      { out, seeds: [5, 6], progress: null },
      {
        problem,
        dpo: { steps: 60, learningRate: 30 },
        rl: { steps: 12, learningRate: 8 },
      },
    );
    const runs = requireWritten(result, 'optimal-policy') as OptimalPolicyRun[];
    assert.deepEqual(
      runs.map(({ seed, rl }) => [seed, rl.curve.map(({ step }) => step)]),
      [
        [5, [1, 2, 3, 5, 6, 7, 9, 12]],
        [6, [1, 2, 3, 5, 6, 7, 9, 12]],
      ],
    );
    for (const { seed, dpo, rl, startDistance, cancellation } of runs) {
      const drawn = drawProblem(seed, problem);
      const { logprobs: optimum } = optimumOf(drawn);
      const objective = policyGradientObjective(drawn);
      const distances = trainTable(drawn, objective, { steps: 12, learningRate: 8 }).map(
        (row, prompt) =>
          row.reduce((sum, p, y) => sum + Math.exp(p) * (p - (optimum[prompt]?.[y] ?? NaN)), 0),
      );
      expectClose(rl.distance, Math.max(...distances), { rtol: 1e-9 });
      // With so few completions DPO arrives within these steps, and RLOO comes nearer.
      assert.ok(dpo.distance <= 1e-10, `DPO ended ${dpo.distance} away`);
      assert.ok(
        rl.distance < startDistance / 10,
        `RLOO went from ${startDistance} to ${rl.distance}`,
      );
      assert.ok(Math.abs(dpo.shareOfFrontier - 1) < 1e-6, `${dpo.shareOfFrontier}`);
      assert.ok(dpo.rewardError < 1e-3 && dpo.constantError < 1e-3, 'the rewards are those of DPO');
      const { lossChange, marginError, gradientAtOptimum } = cancellation;
      const left = Math.max(lossChange, marginError, gradientAtOptimum);
      assert.ok(left < 1e-14, `${left} of the partition function is left`);
      const [least, largest] = cancellation.logPartitions;
      assert.ok(largest - least > 0.1, `log Z from ${least} to ${largest}`);
    }
  });
});

/** Four prompts, two rankings of each, a model of a few thousand parameters. */
const GROUND = {
  ...{ model: tinyDecoder(16), trainCount: 4, heldOutCount: 2, rankingsPerPrompt: 2 },
  ...{ sft: SFT, reward: ['epochs=1', 'batchSize=4', 'warmupSteps=0'] },
};
const PPO = ['steps=2', 'promptsPerStep=2', 'groupSize=2', 'minibatchSize=4'];
const EPOCH = ['epochs=1', 'batchSize=4', 'warmupSteps=0'];

describe('experiments on preferences', () => {
  test('frontier', async () => {
    const result = await reproduceFrontier(
      { out: join(base, 'frontier'), seeds: [0], progress: null },
      {
        ...{ ...GROUND, dpoBetas: [0.5], klCoefs: [0.2], bestOf: [2, 4] },
        ...{ dpo: EPOCH, ppo: PPO, preferred: EPOCH },
      },
    );
    const runs = requireWritten(result, 'frontier') as FrontierRun[];
    assert.deepEqual(
      runs.map(({ family, at }) => [family, at]),
      [
        ['DPO', 0.5],
        ['PPO, reward model', 0.2],
        ['PPO, true reward', 0.2],
        ['SFT on the best', null],
        ['best of n, reward model', 2],
        ['best of n, true reward', 2],
        ['best of n, reward model', 4],
        ['best of n, true reward', 4],
      ],
    );
    for (const { family, kl, share } of runs) {
      assert.ok(kl >= 0, `${family}: KL ${kl}`);
      // Beyond rounding no policy has more reward at its KL. Best-of-n leaves out a ten-thousandth of the mass.
      assert.ok(share <= 1 + 1e-3, `${family}: share ${share}`);
    }
    const [two, four] = runs.filter(({ family }) => family === 'best of n, true reward');
    assert.ok((four?.reward ?? 0) > (two?.reward ?? 0), 'more samples have a better best');
  });

  test('preference-methods', async () => {
    const result = await reproducePreferenceMethods(
      { out: join(base, 'preference-methods'), seeds: [0], progress: null },
      { ...GROUND, pairs: EPOCH, online: ['steps=2', 'promptsPerStep=2'] },
    );
    const runs = requireWritten(result, 'preference-methods') as PreferenceMethodRun[];
    assert.deepEqual(
      runs.map(({ method, agreement }) => [method, agreement !== null]),
      [
        ['dpo', true],
        ['kto', false],
        ['orpo', true],
        ['simpo', true],
        ['cpo', true],
        ['online-dpo', false],
      ],
    );
    assert.equal(new Set(runs.map(({ kl }) => kl)).size, 6, 'each is another policy');
  });

  test('overoptimisation', async () => {
    const result = await reproduceOveroptimisation(
      { out: join(base, 'overoptimisation'), seeds: [0], progress: null },
      { ...GROUND, klCoefs: [0.5, 1e-6], ppo: [...PPO, 'steps=12'] },
    );
    const runs = requireWritten(result, 'overoptimisation') as ProxyRun[];
    assert.deepEqual(
      runs.map(({ hasKl, curve }) => [hasKl, curve.map(({ step }) => step)]),
      [
        [true, [5.5, 11.5]],
        [false, [5.5, 11.5]],
      ],
    );
    for (const { curve } of runs)
      for (const { kl, proxy, gold } of curve)
        assert.ok([kl, proxy, gold].every(Number.isFinite), `${kl}, ${proxy}, ${gold}`);
  });

  test('sft-dpo-ppo-grpo', async () => {
    const GRPO_STEPS = ['steps=2', 'promptsPerStep=2', 'groupSize=2'];
    const result = await reproduceComparison(
      { out: join(base, 'comparison'), seeds: [0], progress: null },
      { ...GROUND, train: { sft: EPOCH, dpo: EPOCH, ppo: PPO, grpo: GRPO_STEPS } },
    );
    const runs = requireWritten(result, 'sft-dpo-ppo-grpo') as ComparedRun[];
    assert.deepEqual(
      runs.map(({ method, steps, samples }) => [method, steps, samples]),
      [
        ['sft', 2, 8],
        ['dpo', runs[1]?.steps, 8 * (runs[1]?.steps ?? NaN)],
        ['ppo', 2, 8],
        ['grpo', 2, 8],
      ],
    );
    assert.ok(
      runs.every(({ peakMegabytes }) => peakMegabytes > 10),
      'memory is measured',
    );
  });
});

describe('verifiers', () => {
  test('prm-vs-orm', async () => {
    const out = join(base, 'prm-vs-orm');
    const EPOCHS = ['epochs=1', 'batchSize=64', 'warmupSteps=0'];
    const result = await reproducePrmVsOrm(
      { out, seeds: [0], progress: null },
      {
        // One step each, so that a model that has learned next to nothing is right now and then.
        ...{ model: tinyDecoder(16), summands: [2, 2], trainCount: 16, heldOutCount: 4 },
        ...{ judgedPrompts: 8, samplesPerPrompt: 64, samples: 64, n: [1, 4, 64] },
        ...{ sft: [...SFT, 'maxSteps=100', 'learningRate=0.02'], prm: EPOCHS, reward: EPOCHS },
      },
    );
    const [run] = requireWritten(result, 'prm-vs-orm') as {
      completions: number;
      pairedCompletions: number;
      pairs: number;
      stepAccuracy: number;
      pairAccuracy: number;
      chosen: Record<string, Record<number, { right: number; sound: number | null }>>;
    }[];
    assert.ok(run !== undefined, 'there is a run');
    assert.equal(run.completions, 8 * 64);
    assert.ok(run.pairedCompletions >= 64 && run.pairedCompletions % 64 === 0, 'whole prompts');
    assert.ok(run.pairs >= 63, `${run.pairs} pairs`);
    for (const share of [run.stepAccuracy, run.pairAccuracy])
      assert.ok(share >= 0 && share <= 1, `${share} is no share`);
    const { oracle, majority, ...best } = run.chosen;
    assert.deepEqual(Object.keys(best), ['ORM', 'PRM, product', 'PRM, min', 'PRM, last']);
    for (const of of Object.values(best)) {
      // One sample is no choice: every chooser has the generator's own share.
      expectClose(of[1]?.right ?? NaN, oracle?.[1]?.right ?? 0, { rtol: 1e-9 });
      expectClose(of[1]?.right ?? NaN, majority?.[1]?.right ?? 0, { rtol: 1e-9 });
      assert.ok((of[64]?.right ?? NaN) <= (oracle?.[64]?.right ?? NaN), 'none beats the oracle');
      // With one step a completion is right where its step is.
      assert.equal(of[64]?.sound, of[64]?.right);
    }
    assert.ok(existsSync(join(out, 'seed-0', 'prm', 'model', 'model.safetensors')), 'PRM');
    assert.ok(existsSync(join(out, 'seed-0', 'orm', 'model', 'model.safetensors')), 'ORM');
  });
});

describe('the longer ones', () => {
  test('methods, in processes of their own', async () => {
    const out = join(base, 'methods');
    const heard: string[] = [];
    const progress = {
      isTTY: false,
      write: (text: string) => heard.push(text) > 0,
    };
    const result = await reproduceMethods(
      { out, seeds: [0], methods: ['ppo', 'grpo', 'dapo'], progress },
      {
        ...{ model: tinyDecoder(64), trainCount: 16, heldOutCount: 4, sft: SFT },
        train: ['steps=2', 'promptsPerStep=4', 'groupSize=2', 'minibatchSize=4', 'evalEvery=1'],
      },
    );
    const runs = requireWritten(result, 'methods') as MethodRun[];
    assert.deepEqual(
      runs.map(({ method, models, steps, curve }) => [method, models, steps, curve.length]),
      [
        ['ppo', 3, 2, 3],
        ['grpo', 2, 2, 3],
        ['dapo', 1, 2, 3],
      ],
    );
    assert.ok(runs.every(({ peakMegabytes, kl }) => peakMegabytes > 10 && Number.isFinite(kl)));
    assert.match(heard.join(''), /Seed 0: ppo[\s\S]*ppo step 2\/2[\s\S]*Seed 0: dapo/);
    assert.match(readFileSync(join(out, 'report.md'), 'utf8'), /\| dapo \| never \| never \|/);
  });

  test('methods: a signal ends the process of the run too, and is told', async () => {
    const out = join(base, 'methods-stopped');
    const heard: string[] = [];
    const progress = {
      write: (text: string) => {
        heard.push(text);
        if (/ppo step \d{2}/.test(text)) process.emit('SIGTERM', 'SIGTERM');
      },
    };
    const result = await reproduceMethods(
      { out, seeds: [0], methods: ['ppo', 'grpo', 'dapo'], progress },
      {
        ...{ model: tinyDecoder(64), trainCount: 16, heldOutCount: 4, sft: SFT },
        train: ['steps=100000', 'promptsPerStep=4', 'groupSize=2', 'minibatchSize=4'],
      },
    );
    assert.equal(result, 'SIGTERM');
    assert.doesNotMatch(heard.join(''), /Seed 0: dapo/);
    const manifest = readFileSync(join(out, 'seed-0', 'ppo', 'status.json'), 'utf8');
    assert.match(manifest, /"state":\s*"stopped"/, 'the run must have ended by itself');
    assert.ok(!existsSync(join(out, 'report.md')), 'there is nothing to report');
  });

  test('maj-pass', async () => {
    const out = join(base, 'maj-pass');
    const result = await reproduceMajPass(
      { out, seeds: [0], progress: null },
      {
        ...{ model: tinyDecoder(64), trainCount: 16, heldOutCount: 4 },
        ...{ k: [1, 4], sft: SFT, grpo: GRPO.slice(0, 3) },
      },
    );
    assert.equal(requireWritten(result, 'maj-pass').length, 1);
  });

  test('dapo-ladder', async () => {
    const out = join(base, 'dapo-ladder');
    const result = await reproduceDapoLadder(
      { out, seeds: [0], progress: null },
      {
        ...{ model: tinyDecoder(72), trainCount: 16, heldOutCount: 4, maxNewTokens: 12, sft: SFT },
        grpo: [...GRPO, 'minibatchSize=2', 'sampling.maxNewTokens=12'],
      },
    );
    const runs = requireWritten(result, 'dapo-ladder') as { rung: string; rounds: number }[];
    assert.deepEqual(
      runs.map(({ rung }) => rung),
      LADDER.map(([name]) => name),
    );
    // A model with random weights is never right, so that all four rounds of both steps are spent.
    assert.deepEqual(
      runs.map(({ rounds }) => rounds),
      [2, 2, 2, 2, 8],
    );
  });
});

describe('runExperiment', () => {
  test('touches nothing where the folder exists', async () => {
    await assert.rejects(reproduceCalculator({ out: base, progress: null }), {
      message: `reproduce: expected a new folder, but ${base} exists.`,
    });
    assert.ok(!existsSync(join(base, 'report.md')));
  });
});
