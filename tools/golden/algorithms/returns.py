"""Writes returns and baselines: rewards per token, returns, advantages, whitening, by their definitions as sums.

    python tools/golden/algorithms/returns.py

Rows are first compacted to their counted tokens; returns and GAE are written as sums over the future, not as
recursions. Numbers are Python floats; where a gradient is wanted, autograd gives it.
"""

import math
import random
import statistics

import torch
from golden_file import write

SEED = 31
random.seed(SEED)
torch.manual_seed(SEED)
torch.set_default_dtype(torch.float64)

B, T = 5, 6
MASK = [
    [1, 1, 1, 1, 1, 1],
    [1, 1, 0, 0, 1, 0],  # tool output inside, padding at the end
    [0, 0, 1, 1, 1, 1],
    [0, 0, 0, 0, 0, 0],
    [0, 1, 0, 0, 0, 0],
]
nan = math.nan


def table(scale=1.0, shift=0.0):
    return [[round(random.gauss(shift, scale), 4) for _ in range(T)] for _ in range(B)]


def vector():
    return [round(random.gauss(0, 2), 4) for _ in range(B)]


def positions(i):
    return [t for t in range(T) if MASK[i][t]]


def spread(per_row):
    """Compact rows back into [B, T], 0 elsewhere."""
    out = [[0.0] * T for _ in range(B)]
    for i in range(B):
        for t, value in zip(positions(i), per_row[i]):
            out[i][t] = value
    return out


def shaped():
    cases = []
    for coefficient in [0.0, 0.07, 1.5]:
        new, ref, scores = table(1, -2), table(1, -2), vector()
        rows = []
        for i in range(B):
            ts = positions(i)
            rows.append([-coefficient * (new[i][t] - ref[i][t]) + (scores[i] if t == ts[-1] else 0.0) for t in ts])
        sums = [scores[i] - coefficient * math.fsum(new[i][t] - ref[i][t] for t in positions(i)) for i in range(B)]
        cases.append(
            {
                "name": f"coefficient {coefficient}",
                "scores": scores,
                "logprobs": new,
                "refLogprobs": ref,
                "mask": MASK,
                "klCoef": coefficient,
                "expected": {"shaped": spread(rows), "penalized": sums},
            }
        )
    return cases


def returns_of(rewards, discount):
    return [math.fsum(discount ** (u - t) * rewards[u] for u in range(t, len(rewards))) for t in range(len(rewards))]


def gae_of(rewards, values, discount, lam, bootstrap):
    n = len(rewards)
    after = values[1:] + [bootstrap]
    deltas = [rewards[t] + discount * after[t] - values[t] for t in range(n)]
    return [math.fsum((discount * lam) ** (u - t) * deltas[u] for u in range(t, n)) for t in range(n)]


def returns():
    cases = []
    for discount, lam, cut in [(1.0, 0.95, False), (0.9, 0.8, True), (0.97, 1.0, False), (0.5, 0.0, True), (0.0, 0.7, True)]:
        rewards, values, scores = table(), table(), vector()
        bootstrap = vector() if cut else None
        compact = lambda rows, i: [rows[i][t] for t in positions(i)]
        advantages, targets, plain, monte, monte_targets = [], [], [], [], []
        for i in range(B):
            r, v = compact(rewards, i), compact(values, i)
            a = gae_of(r, v, discount, lam, bootstrap[i] if cut else 0.0)
            advantages.append(a)
            targets.append([x + y for x, y in zip(a, v)])
            plain.append(returns_of(r, discount))
            discounted = [discount ** (len(v) - 1 - t) * scores[i] for t in range(len(v))]
            monte_targets.append(discounted)
            monte.append([x - y for x, y in zip(discounted, v)])
        flat = [x for row in plain for x in row]
        centre, spread_of = statistics.fmean(flat), statistics.pvariance(flat)
        whitened = [[(x - centre) / math.sqrt(spread_of + 1e-8) for x in row] for row in plain]
        case = {
            "name": f"discount {discount}, lambda {lam}" + (", cut off" if cut else ""),
            "rewards": rewards,
            "values": values,
            "scores": scores,
            "mask": MASK,
            "discount": discount,
            "gaeLambda": lam,
            "expected": {
                "advantages": spread(advantages),
                "returns": spread(targets),
                "discountedReturns": spread(plain),
                "monteCarloAdvantages": spread(monte),
                "monteCarloReturns": spread(monte_targets),
                "batchWhitened": spread(whitened),
            },
        }
        if cut:
            case["bootstrapValues"] = bootstrap
        cases.append(case)
    return cases


def whitened():
    cases = []
    for keep in [False, True]:
        values = torch.randn(B, T).mul(3).add(1).requires_grad_()
        upstream = torch.randn(B, T)
        entries = torch.stack([values[i, t] for i in range(B) for t in positions(i)])
        centre = entries.mean()
        variance = ((entries - centre) ** 2).mean()
        result = (entries - centre) / torch.sqrt(variance + 1e-8) + (centre if keep else 0)
        weights = torch.stack([upstream[i, t] for i in range(B) for t in positions(i)])
        (result * weights).sum().backward()
        flat = result.tolist()
        rows = []
        for i in range(B):
            rows.append([flat.pop(0) for _ in positions(i)])
        cases.append(
            {
                "name": "keeps the mean" if keep else "removes the mean",
                "values": values,
                "mask": MASK,
                "keepMean": keep,
                "upstream": upstream,
                "expected": {"values": spread(rows), "gradient": values.grad},
            }
        )
    return cases


def baselines():
    cases = []
    batches = {
        "scored": [round(random.gauss(0, 2), 3) for _ in range(12)],
        "unscored rows": [1.5, nan, 0.25, -2.0, nan, nan, nan, 3.0, 0.0, 1.0, nan, 0.5],
        "ties": [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.3, 0.3, 0.3, 2.0, 2.0, -1.0],
    }
    for name, rewards in batches.items():
        for size in [2, 3, 4]:
            prompts = len(rewards) // size
            greedy = [round(random.gauss(0, 1), 3) for _ in range(prompts)]
            greedy[1] = nan
            one_out, best, scst = [], [], []
            for p in range(prompts):
                group = rewards[p * size : (p + 1) * size]
                for i, r in enumerate(group):
                    others = [x for j, x in enumerate(group) if j != i and x == x]
                    usable = r == r and others
                    one_out.append(r - statistics.fmean(others) if usable else 0.0)
                    best.append(max(r - max(others), 0.0) if usable else 0.0)
                    scst.append(r - greedy[p] if r == r and greedy[p] == greedy[p] else 0.0)
            cases.append(
                {
                    "name": f"{name}, groups of {size}",
                    "rewards": rewards,
                    "greedyRewards": greedy,
                    "groupSize": size,
                    "expected": {"leaveOneOut": one_out, "bestMinusSecond": best, "greedy": scst},
                }
            )
    return cases


write("shaped_rewards.json", "returns.py", SEED, shaped())
write("returns.json", "returns.py", SEED, returns())
write("whiten.json", "returns.py", SEED, whitened())
write("baselines.json", "returns.py", SEED, baselines())
