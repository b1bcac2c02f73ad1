"""Writes token_weights, kl, ppo_clip and group_advantages: formulas written out token by token, gradients by autograd.

    python tools/golden/algorithms/policy.py

Nothing is vectorised and nothing is masked: only counted tokens are ever read, one scalar at a time, so that a mistake
in masking or broadcasting cannot be shared with the implementation under test.
"""

import math
import random
import statistics

import torch
from golden_file import write

SEED = 20240521
torch.manual_seed(SEED)
random.seed(SEED)
torch.set_default_dtype(torch.float64)

B, T, G = 6, 5, 2
MASK = [
    [1, 1, 1, 1, 1],
    [1, 1, 0, 0, 0],
    [0, 1, 1, 0, 1],  # tool output inside
    [1, 0, 0, 0, 0],
    [0, 0, 0, 0, 0],  # filtered
    [1, 1, 1, 1, 0],
]
REDUCTIONS = [
    {"kind": "sequenceMean"},
    {"kind": "tokenMean"},
    {"kind": "constant", "budget": 7},
    {"kind": "sequenceSum"},
    {"kind": "promptMean", "groupSize": G},
]


def weight(mask, reduction, i, totals=None):
    """The weight of a counted token of row i, from the definition."""
    rows = len(mask)
    lengths = [sum(row) for row in mask]
    sequences = totals["sequences"] if totals else rows
    kind = reduction["kind"]
    if kind == "sequenceMean":
        return 1 / (sequences * lengths[i])
    if kind == "tokenMean":
        return 1 / (totals["tokens"] if totals else sum(lengths))
    if kind == "constant":
        return 1 / (sequences * reduction["budget"])
    if kind == "sequenceSum":
        return 1 / sequences
    size = reduction["groupSize"]
    first = i // size * size
    prompts = totals["prompts"] if totals else rows / size
    return 1 / (prompts * sum(lengths[first : first + size]))


def weights(mask, reduction, totals=None):
    return [[weight(mask, reduction, i, totals) if m else 0.0 for m in row] for i, row in enumerate(mask)]


def leaf(rows, columns, scale=1.0, shift=0.0):
    return (torch.randn(rows, columns) * scale + shift).requires_grad_()


def counted(w):
    return [(i, t) for i, row in enumerate(w) for t, x in enumerate(row) if x > 0]


def token_weights():
    cases = []
    totals = {"sequences": 16, "tokens": 40, "prompts": 8}
    for reduction in REDUCTIONS:
        for given in [None, totals]:
            name = reduction["kind"] + (" with totals" if given else "")
            case = {"name": name, "mask": MASK, "reduction": reduction, "expected": weights(MASK, reduction, given)}
            if given:
                case["totals"] = given
            cases.append(case)
    write("token_weights.json", "policy.py", SEED, cases)


def kl_term(estimator, new, old, ref):
    log_ratio = new - ref
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio**2 / 2
    k3 = torch.exp(ref - new) - 1 + log_ratio
    return k3 if estimator == "k3" else torch.exp(new - old) * k3


def kl():
    cases = []
    for estimator in ["k1", "k2", "k3", "k3Unbiased"]:
        for reduction in [REDUCTIONS[0], REDUCTIONS[4]]:
            new, old, ref = leaf(B, T, 1, -2), leaf(B, T, 1, -2), leaf(B, T, 1, -2)
            w = weights(MASK, reduction)
            loss = torch.zeros(())
            for i, t in counted(w):
                loss = loss + w[i][t] * kl_term(estimator, new[i, t], old[i, t].detach(), ref[i, t].detach())
            loss.backward()
            per_token = [[kl_term(estimator, new[i, t], old[i, t], ref[i, t]).item() for t in range(T)] for i in range(B)]
            cases.append(
                {
                    "name": f"{estimator}, {reduction['kind']}",
                    "estimator": estimator,
                    "logprobs": new,
                    "oldLogprobs": old,
                    "refLogprobs": ref,
                    "tokenWeights": w,
                    "expected": {"perToken": per_token, "loss": loss.item(), "gradient": new.grad},
                }
            )
    write("kl.json", "policy.py", SEED, cases)


def ppo_clip():
    cases = []
    settings = [
        ("asymmetric clip", {"low": 0.2, "high": 0.28}, None),
        ("narrow clip", {"low": 0.05, "high": 0.01}, None),
        ("dual clip", {"low": 0.2, "high": 0.3}, 1.5),
    ]
    for reduction in REDUCTIONS:
        for name, clip, dual in settings:
            new, old, advantages = leaf(B, T, 0.4, -2), leaf(B, T, 0.4, -2), torch.randn(B, T)
            advantages[0, 1] = 0.0
            w = weights(MASK, reduction)
            loss = torch.zeros(())
            stats = {"clipFractionLow": 0.0, "clipFractionHigh": 0.0, "meanRatio": 0.0, "approxKl": 0.0}
            deviation = 0.0
            for i, t in counted(w):
                ratio = torch.exp(new[i, t] - old[i, t].detach())
                a = advantages[i, t].item()
                low, high = 1 - clip["low"], 1 + clip["high"]
                r = ratio.item()
                bounded = min(max(r, low), high)
                objective = ratio * a if r * a <= bounded * a else torch.tensor(bounded * a)
                if dual is not None and a < 0 and objective.item() < dual * a:
                    objective = torch.tensor(dual * a)
                loss = loss - w[i][t] * objective
                stats["clipFractionLow"] += w[i][t] * (a < 0 and r < low)
                stats["clipFractionHigh"] += w[i][t] * (a > 0 and r > high)
                stats["meanRatio"] += w[i][t] * r
                stats["approxKl"] += w[i][t] * (r - 1 - math.log(r))
                deviation = max(deviation, abs(r - 1))
            loss.backward()
            case = {
                "name": f"{name}, {reduction['kind']}",
                "logprobs": new,
                "oldLogprobs": old,
                "advantages": advantages,
                "tokenWeights": w,
                "clip": clip,
                "expected": {
                    "loss": loss.item(),
                    "gradient": new.grad,
                    "stats": {**stats, "maxRatioDeviation": deviation},
                },
            }
            if dual is not None:
                case["dualClip"] = dual
            cases.append(case)
    write("ppo_clip.json", "policy.py", SEED, cases)


def group_advantages():
    cases = []
    nan = math.nan
    batches = {
        "scored": [round(random.gauss(0, 2), 3) for _ in range(12)],
        "unscored rows": [1.5, nan, 0.25, -2.0, nan, nan, nan, 3.0, 0.0, 1.0, nan, 0.5],
        "equal group": [0.1, 0.1, 0.1, 0.1, 0.7, -0.4, 0.2, 0.9, nan, 0.3, 0.3, 0.3],
    }
    for name, rewards in batches.items():
        for scale in ["group", "batch", "none"]:
            for size, epsilon in [(4, 1e-4), (3, 0.5)]:
                batch_std = statistics.stdev([r for r in rewards if r == r])
                expected = []
                for first in range(0, len(rewards), size):
                    group = rewards[first : first + size]
                    scored = [r for r in group if r == r]
                    for r in group:
                        if r != r or len(scored) < 2 or max(scored) == min(scored):
                            expected.append(0.0)
                            continue
                        divisor = {
                            "group": statistics.stdev(scored) + epsilon,
                            "batch": batch_std + epsilon,
                            "none": 1.0,
                        }[scale]
                        expected.append((r - statistics.mean(scored)) / divisor)
                cases.append(
                    {
                        "name": f"{name}, {scale}, groups of {size}",
                        "rewards": rewards,
                        "groupSize": size,
                        "scale": scale,
                        "epsilon": epsilon,
                        "expected": expected,
                    }
                )
    write("group_advantages.json", "policy.py", SEED, cases)


token_weights()
kl()
ppo_clip()
group_advantages()
