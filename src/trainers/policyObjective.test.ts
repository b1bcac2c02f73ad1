/** By hand and by identities; against formulas written out for whole steps see grpoTrainer.reference.test.ts. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { f64, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import { GrpoConfig, type GrpoConfigInput } from '../config/index.js';
import { entropyBonus } from '../algorithms/index.js';
import {
  objectiveReduction,
  policyObjective,
  rowCounts,
  rowMoves,
  updateRows,
  type Objective,
  type UpdateRow,
} from './policyObjective.js';
import type { Tensor } from '../torch/index.js';
import type { RolloutRow } from './rollout.js';

/** A row of as many tokens as there are advantages; what is not given is −1 nat. */
function row(changes: Partial<UpdateRow & RolloutRow> = {}): UpdateRow & RolloutRow {
  const advantages = changes.advantages ?? [1, 1];
  const ones = advantages.map(() => -1);
  return {
    reward: 1,
    finishReason: 'eos',
    completionIds: advantages.map(() => 3),
    rolloutLogprobs: ones,
    oldLogprobs: ones,
    refLogprobs: undefined,
    ...changes,
    advantages,
  } as UpdateRow & RolloutRow;
}

const settings = (input: GrpoConfigInput = {}): GrpoConfig =>
  GrpoConfig.parse({ klCoef: 0, groupSize: 2, ...input });

function loss(
  rows: readonly UpdateRow[],
  input: GrpoConfigInput,
  logprobs: number[][],
  weights = logprobs.map((values) => values.map(() => 0.25)),
): Objective & { readonly gradient: Tensor } {
  const variable = leaf(logprobs);
  const result = policyObjective(
    rows,
    { logprobs: variable, tokenWeights: f64(weights) },
    settings(input),
  );
  result.loss.backward();
  return { ...result, gradient: gradientOf(variable) };
}

describe('policyObjective', () => {
  const now = [
    [-1, -1],
    [-1, -1],
  ];

  test('by hand: on-policy the loss is −Σ w·Â, and its gradient −w·Â', () => {
    const rows = [row({ advantages: [2, 3] }), row({ advantages: [-1, -5] })];
    const found = loss(rows, {}, now);
    expectClose(found.loss, -0.25 * (2 + 3 - 1 - 5));
    expectClose(found.gradient, [
      [-0.5, -0.75],
      [0.25, 1.25],
    ]);
    expectClose(found['policyLoss'] ?? NaN, 0.25);
    assert.equal(found['klPolicyReference'], undefined);
    assert.equal(found['entropy'], undefined);
  });

  test('the KL term is added β times; the k1 metric is told without β', () => {
    const rows = [row({ refLogprobs: [-2, -1] }), row({ refLogprobs: [-1, -1.5] })];
    const found = loss(rows, { klCoef: 0.1, klEstimator: 'k2' }, now);
    expectClose(found.loss, -1 + 0.1 * 0.25 * (0.5 + 0.125));
    expectClose(found['policyLoss'] ?? NaN, -1);
    expectClose(found['kl'] ?? NaN, 0.25 * (0.5 + 0.125));
    expectClose(found['klPolicyReference'] ?? NaN, 0.25 * 1.5);
    assert.equal(found['klPolicyReference']?.requiresGrad, false);
    assert.equal(found['policyLoss']?.requiresGrad, false);
  });

  test('a KL in the reward is no term of the loss, and measured all the same', () => {
    const rows = [row({ refLogprobs: [-2, -1] }), row({ refLogprobs: [-1, -1.5] })];
    const reward = { klCoef: 0.1, klPlacement: 'reward', klEstimator: 'k1' } as const;
    const found = loss(rows, reward, now);
    expectClose(found.loss, -1);
    expectClose(found['klPolicyReference'] ?? NaN, 0.25 * 1.5);
  });

  test('with a reference and no KL coefficient the KL is measured by k1 alone, and multiplies nothing', () => {
    // exp of 2000 nats is no number of float64: β = 0 times it would be none either.
    const rows = [row({ refLogprobs: [-1, -1] })];
    const found = loss(rows, { klEstimator: 'k3' }, [[-1, -2001]]);
    expectClose(found['klPolicyReference'] ?? NaN, -0.25 * 2000);
    assert.equal(found['kl'], undefined);
    expectClose(found.loss, -0.25);
  });

  test('entropy is measured with the weights of the loss, without a gradient', () => {
    const entropy = leaf([[0.5, 1.5]]);
    const tokenWeights = f64([[0.25, 0.5]]);
    const found = policyObjective(
      [row()],
      { logprobs: leaf([[-1, -1]]), tokenWeights, entropy },
      settings(),
    );
    expectClose(found['entropy'] ?? NaN, 0.875);
    expectClose(
      found['entropy'] ?? NaN,
      entropyBonus({ entropy, tokenWeights, coef: 0 }).stats.entropy,
    );
    found.loss.backward();
    assert.equal(entropy.grad, null);
  });

  test('ratioAgainst names the stream: old ln 2 below, rollout ln 4 below', () => {
    const rows = [
      row({
        oldLogprobs: [-1 - Math.log(2), -1],
        rolloutLogprobs: [-1 - Math.log(4), -1],
        advantages: [-1, -1],
      }),
    ];
    const [logprobs] = now;
    expectClose(loss(rows, {}, [logprobs ?? []]).loss, 0.25 * (2 + 1));
    expectClose(loss(rows, { ratioAgainst: 'rollout' }, [logprobs ?? []]).loss, 0.25 * (4 + 1));
  });

  describe('an objective has its own settings', () => {
    const drifted = (advantages: number[]) => [
      row({ advantages, oldLogprobs: [-1 - Math.log(4), -1, -1 + Math.log(4)] }), // ρ: 4, 1, 1/4
    ];
    const at = [[-1, -1, -1]];

    test('dualClip: a negative advantage costs at most c·Â', () => {
      const rows = drifted([-1, -1, -1]);
      const clipped = { low: 0.2, high: 0.2 };
      const plain = { objective: { kind: 'ppoClip' }, clip: clipped } as const;
      expectClose(loss(rows, plain, at).loss, 0.25 * (4 + 1 + 0.8));
      const dual = { objective: { kind: 'ppoClip', dualClip: 3 }, clip: clipped } as const;
      expectClose(loss(rows, dual, at).loss, 0.25 * (3 + 1 + 0.8));
    });

    test('the two bounds of the clipping each have their side, by token and by sequence', () => {
      const clip = { low: 0.5, high: 0.25 };
      // By token: 1.25 in place of ρ = 4 where Â is positive, 0.5 in place of 1/4 where it is negative.
      const plain = { objective: { kind: 'ppoClip' }, clip } as const;
      expectClose(loss(drifted([1, 1, -2]), plain, at).loss, -0.25 * (1.25 + 1 - 2 * 0.5));
      // By sequence: ρ is 2 and 1/4, and the bounds are near 1.
      const moved = (by: number, advantage: number) =>
        row({ advantages: [advantage, advantage], oldLogprobs: [-1 - by, -1 - by] });
      const objective = { kind: 'gspo', level: 'sequence' } as const;
      const gspo = { objective, clip: { low: 0.003, high: 0.004 } };
      const rows = [moved(Math.log(2), 1), moved(-Math.log(4), -2)];
      expectClose(loss(rows, gspo, now).loss, -0.25 * 2 * (1.004 - 2 * 0.997));
    });

    test('cispo: bounds of the ratio itself', () => {
      const objective = { kind: 'cispo', low: 0.5, high: 2 } as const;
      const found = loss(drifted([1, 1, 1]), { objective }, at);
      expectClose(found.loss, 0.25 * (2 + 1 + 0.5));
      expectClose(found.gradient, [[-0.5, -0.25, -0.125]]);
    });

    test('gspo: the gradient of a sequence, or of its tokens', () => {
      const rows = [row({ advantages: [2, 4] })];
      const gspo = (level: 'sequence' | 'token') =>
        loss(rows, { objective: { kind: 'gspo', level }, clip: { low: 3e-4, high: 4e-4 } }, [
          [-1, -1],
        ]);
      expectClose(gspo('sequence').gradient, [[-0.75, -0.75]]);
      expectClose(gspo('token').gradient, [[-0.5, -1]]);
    });
  });

  test('ρ of k3Unbiased is against the stream that ratioAgainst names', () => {
    const [now, old, rollout, ref] = [-1, -1 - Math.log(2), -1 - Math.log(4), -2];
    const stale = row({
      ...{ advantages: [0], oldLogprobs: [old], rolloutLogprobs: [rollout] },
      refLogprobs: [ref],
    });
    const k3 = Math.exp(ref - now) - 1 - (ref - now); // e⁻¹ − 1 + 1
    const kl = { klCoef: 0.1, klEstimator: 'k3Unbiased' } as const;
    expectClose(loss([stale], kl, [[now]]).loss, 0.25 * 0.1 * 2 * k3);
    expectClose(
      loss([stale], { ...kl, ratioAgainst: 'rollout' }, [[now]]).loss,
      0.25 * 0.1 * 4 * k3,
    );
  });

  describe('importance weights multiply the policy term and not the KL', () => {
    const stale = row({
      oldLogprobs: [-1, -1],
      rolloutLogprobs: [-1 - Math.log(3), -1 + Math.log(3)], // old/rollout: 3 and 1/3
      refLogprobs: [-2, -2],
    });
    const kl = { klCoef: 0.1, klEstimator: 'k2' } as const;
    const klTerm = 0.1 * 0.25 * (0.5 + 0.5);
    const cases = [
      ['token', 'truncate', 2, 1 / 3],
      ['token', 'mask', 0, 1 / 3],
      ['sequence', 'truncate', 1, 1],
    ] as const;
    for (const [level, mode, first, second] of cases) {
      test(`${level}, ${mode}`, () => {
        const found = loss([stale], { ...kl, importanceWeights: { cap: 2, level, mode } }, [
          [-1, -1],
        ]);
        expectClose(found.loss, -0.25 * (first + second) + klTerm);
        expectClose(found['importanceWeight'] ?? NaN, 0.25 * (first + second));
      });
    }
  });

  describe('the off-policy mask', () => {
    // The policy moved 0.5 nats per token away from what was drawn.
    const drifted = { rolloutLogprobs: [-0.5, -0.5], refLogprobs: [-2, -2] };
    const mask = { klCoef: 0.1, klEstimator: 'k2', offPolicyMask: { threshold: 0.4 } } as const;
    const klTerm = 0.1 * 0.25 * (4 * 0.5);

    test('takes a bad row out of the policy term and leaves its KL', () => {
      const rows = [
        row({ ...drifted, advantages: [-2, -2] }),
        row({ ...drifted, advantages: [3, 3] }),
      ];
      const found = loss(rows, mask, now);
      expectClose(found.loss, -0.25 * 6 + klTerm);
      expectClose(found['offPolicyMasked'] ?? NaN, 0.5);
    });

    test('keeps it below the threshold; what the environment said is in no mean', () => {
      const rows = [row({ ...drifted, advantages: [-2, -2] }), row(drifted)];
      const wide = { ...mask, offPolicyMask: { threshold: 0.6 } };
      expectClose(loss(rows, wide, now)['offPolicyMasked'] ?? NaN, 0);
      const quiet = [
        row({ rolloutLogprobs: [0, -0.5], advantages: [0, -2] }), // 1 nat at a token of weight 0
        row(drifted),
      ];
      const found = loss(quiet, { offPolicyMask: { threshold: 0.6 } }, now, [
        [0, 0.25],
        [0.25, 0.25],
      ]);
      expectClose(found['offPolicyMasked'] ?? NaN, 0);
      const masked = loss(quiet, { offPolicyMask: { threshold: 0.4 } }, now, [
        [0, 0.25],
        [0.25, 0.25],
      ]);
      expectClose(masked['offPolicyMasked'] ?? NaN, 0.25);
    });

    test('and importance weights multiply', () => {
      const rows = [
        row({ rolloutLogprobs: [-0.5, -0.5], advantages: [-2, -2] }),
        row({ rolloutLogprobs: [-1.2, -1.2], advantages: [3, 3] }),
      ];
      const both = { offPolicyMask: { threshold: 0.4 }, importanceWeights: {} };
      expectClose(loss(rows, both, now).loss, -0.25 * 6 * Math.exp(0.2));
    });
  });

  describe('group preferences', () => {
    const preference = { objective: { kind: 'groupPreference', beta: 0.5 } } as const;
    const reference = { refLogprobs: [-1, -2] };
    const rows = [row({ ...reference, reward: 1 }), row({ ...reference, reward: 5 })];
    // Sums −3 of the reference; −2 and −4 of the policy: s = 0.5 and −0.5, the second is the good one.
    const logprobs = [
      [-1, -1],
      [-2, -2],
    ];
    const share = Math.exp(-0.5) / (Math.exp(-0.5) + Math.exp(0.5));

    test('by hand: −log of the good completion’s share', () => {
      const found = loss(rows, preference, logprobs);
      expectClose(found.loss, -Math.log(share));
      expectClose(found['goodProbability'] ?? NaN, share);
      const slope = 0.5 * (1 - share);
      expectClose(found.gradient, [
        [slope, slope],
        [-slope, -slope],
      ]);
    });

    test('unless told how many, all with the highest score are good: no right answer is called bad', () => {
      const tied = [1, 0, 1, 1].map((reward) => row({ ...reference, reward }));
      const four = [...logprobs, ...logprobs];
      const of = (goodCompletions: number | null) =>
        loss(
          tied,
          { ...preference, groupSize: 4, objective: { ...preference.objective, goodCompletions } },
          four,
        );
      expectClose(of(null).loss, of(3).loss);
      expectClose(of(null).gradient, of(3).gradient);
      assert.ok(
        Math.abs(of(null).loss.item() - of(1).loss.item()) > 0.1,
        'one alone is another loss',
      );
    });

    test('the weight of a prompt is what its tokens weigh together', () => {
      const weights = [
        [0.1, 0.2],
        [0.3, 0],
      ];
      expectClose(loss(rows, preference, logprobs, weights).loss, -0.6 * Math.log(share));
    });

    test('what the environment said is in no sum', () => {
      const talked = rows.map((each) => ({ ...each, completionMask: [0, 1] }));
      // Only second tokens: −1 and −2 of the policy, −2 of the reference.
      const own = 1 / (1 + Math.exp(0.5 * 1));
      expectClose(loss(talked, preference, logprobs).loss, -Math.log(own));
    });

    for (const goodCompletions of [null, 1]) {
      test(`a group that is unscored in part, or without variance, teaches nothing (goodCompletions ${goodCompletions})`, () => {
        const objective = { ...preference.objective, goodCompletions };
        for (const reward of [NaN, 1]) {
          const group = [row({ ...reference, reward: 1 }), row({ ...reference, reward })];
          const found = loss([...group, ...rows], { objective }, [...logprobs, ...logprobs]);
          expectClose(found.loss, -Math.log(share));
          expectClose(found.gradient.narrow(0, 0, 2), [
            [0, 0],
            [0, 0],
          ]);
        }
      });
    }
  });
});

describe('which rows', () => {
  test('count: scored ones, and with overlongFiltering those that were not truncated', () => {
    const filtering = { overlongFiltering: true };
    const none = { overlongFiltering: false };
    const truncated = row({ finishReason: 'length' });
    assert.deepEqual(
      [row(), truncated, row({ reward: NaN })].map((each) => rowCounts(each, none)),
      [true, true, false],
    );
    assert.deepEqual(
      [row(), truncated, row({ finishReason: 'stop' })].map((each) => rowCounts(each, filtering)),
      [true, false, true],
    );
  });

  test('move: those that count and have an advantage, a KL in the loss, or a preference', () => {
    const still = row({ advantages: [0, 0] });
    const moves = (each: UpdateRow & RolloutRow, input: GrpoConfigInput = {}): boolean =>
      rowMoves(each, settings(input));
    const inReward = { klCoef: 0.1, klPlacement: 'reward', klEstimator: 'k1' } as const;
    const preference = { objective: { kind: 'groupPreference' } } as const;
    assert.equal(moves(row()), true);
    assert.equal(moves(row({ advantages: [0, 0.1] })), true);
    assert.equal(moves(row({ reward: NaN }), { klCoef: 0.1 }), false);
    assert.deepEqual(
      [{}, { klCoef: 0.1 }, inReward, preference].map((input) => moves(still, input)),
      [false, true, false, true],
    );
  });

  test('an update sees: groups that stay, nothing where none of their rows counts', () => {
    const [a, b, c, d] = [row({ reward: 1 }), row({ reward: 2 }), row(), row()];
    const rows = [a, b, c, d] as const;
    const dropping = settings({ dropGroupsWithoutVariance: true });
    assert.deepEqual(updateRows(rows, settings()), rows);
    assert.deepEqual(updateRows(rows, dropping), [a, b]);
    assert.deepEqual(updateRows([c, d], dropping), []);
    assert.deepEqual(updateRows([c, d], settings()), [c, d]);
    const unscored = row({ reward: NaN });
    assert.deepEqual(updateRows([unscored, unscored], settings()), []);
    assert.deepEqual(updateRows([unscored, a], settings()), [unscored, a]);
    const preference = settings({ objective: { kind: 'groupPreference' } });
    assert.deepEqual(updateRows([...rows, unscored, a], preference), [a, b]);
    assert.deepEqual(updateRows([a, b, unscored], { ...preference, groupSize: 3 }), []);
  });

  test('are averaged by prompt where groups are compared, whatever is set', () => {
    const reduction = { kind: 'tokenMean' } as const;
    const ppoClip = { kind: 'ppoClip', dualClip: null } as const;
    assert.deepEqual(objectiveReduction({ objective: ppoClip, reduction }), reduction);
    const preference = { kind: 'groupPreference', goodCompletions: 1, beta: 1 } as const;
    assert.deepEqual(objectiveReduction({ objective: preference, reduction }), {
      kind: 'promptMean',
    });
  });
});
