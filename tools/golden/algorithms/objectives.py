"""Writes objectives: GSPO, CISPO, REINFORCE, the value loss, entropy, group preference, off-policy weights and sums.

    python tools/golden/algorithms/objectives.py

Formulas are written token by token on counted tokens only, as in policy.py; gradients are autograd's.
"""

import math
import random

import torch
from golden_file import write

SEED = 97
random.seed(SEED)
torch.manual_seed(SEED)
torch.set_default_dtype(torch.float64)

B, T, V = 4, 5, 6
MASK = [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]
WEIGHTS = [[round(random.uniform(0.05, 0.4), 3) if m else 0.0 for m in row] for row in MASK]
COUNTED = [(i, t) for i in range(B) for t in range(T) if MASK[i][t]]


def leaf(*shape, scale=1.0, shift=0.0):
    return (torch.randn(*shape) * scale + shift).requires_grad_()


def row_mean(rows, i, mask=MASK):
    return torch.stack([rows[i, t] for t in range(T) if mask[i][t]]).mean()


def total(terms):
    return sum(terms, torch.zeros(()))


def ratio_stats(log_ratios):
    """log_ratios: {(i, t): float}."""
    return {
        "meanRatio": math.fsum(WEIGHTS[i][t] * math.exp(x) for (i, t), x in log_ratios.items()),
        "approxKl": math.fsum(WEIGHTS[i][t] * (math.exp(x) - 1 - x) for (i, t), x in log_ratios.items()),
        "maxRatioDeviation": max(abs(math.exp(x) - 1) for x in log_ratios.values()),
    }


def clipped(ratio, a, low, high):
    bounded = min(max(ratio.item(), low), high)
    return ratio * a if ratio.item() * a <= bounded * a else torch.tensor(bounded * a)


def gspo():
    cases = []
    wider = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 1, 1], [1, 0, 0, 0, 0]]
    for level in ["sequence", "token"]:
        for mask in [None, wider]:
            new, old, advantages = leaf(B, T, scale=0.3, shift=-2), leaf(B, T, scale=0.3, shift=-2), torch.randn(B, T)
            clip = {"low": 0.03, "high": 0.06}
            terms, logs, low_share, high_share = [], {}, 0.0, 0.0
            for i, t in COUNTED:
                log_s = row_mean(new - old.detach(), i, mask or MASK)
                if level == "token":
                    log_s = log_s.detach() + new[i, t] - new[i, t].detach()
                s, a = torch.exp(log_s), advantages[i, t].item()
                logs[i, t] = log_s.item()
                terms.append(-WEIGHTS[i][t] * clipped(s, a, 1 - clip["low"], 1 + clip["high"]))
                low_share += WEIGHTS[i][t] * (a < 0 and s.item() < 1 - clip["low"])
                high_share += WEIGHTS[i][t] * (a > 0 and s.item() > 1 + clip["high"])
            loss = total(terms)
            loss.backward()
            case = {
                "name": level + (" with a wider mask" if mask else ""),
                "level": level,
                "logprobs": new,
                "oldLogprobs": old,
                "advantages": advantages,
                "tokenWeights": WEIGHTS,
                "clip": clip,
                "expected": {
                    "loss": loss.item(),
                    "gradient": new.grad,
                    "stats": {**ratio_stats(logs), "clipFractionLow": low_share, "clipFractionHigh": high_share},
                },
            }
            if mask:
                case["mask"] = mask
            cases.append(case)
    return cases


def cispo():
    cases = []
    for clip in [{}, {"high": 1.2}, {"low": 0.7, "high": 1.5}]:
        new, old, advantages = leaf(B, T, scale=0.8, shift=-2), leaf(B, T, scale=0.8, shift=-2), torch.randn(B, T)
        low, high = clip.get("low", 0.0), clip.get("high", 5.0)
        logs = {(i, t): (new[i, t] - old[i, t]).item() for i, t in COUNTED}
        loss = total(
            -WEIGHTS[i][t] * min(max(math.exp(logs[i, t]), low), high) * advantages[i, t].item() * new[i, t]
            for i, t in COUNTED
        )
        loss.backward()
        cases.append(
            {
                "name": f"clip {clip}",
                "logprobs": new,
                "oldLogprobs": old,
                "advantages": advantages,
                "tokenWeights": WEIGHTS,
                "clip": clip,
                "expected": {
                    "loss": loss.item(),
                    "gradient": new.grad,
                    "stats": {
                        **ratio_stats(logs),
                        "clipFractionLow": sum(WEIGHTS[i][t] for (i, t), x in logs.items() if math.exp(x) < low),
                        "clipFractionHigh": sum(WEIGHTS[i][t] for (i, t), x in logs.items() if math.exp(x) > high),
                    },
                },
            }
        )
    return cases


def reinforce():
    cases = []
    for given in [False, True]:
        new, advantages, rollout = leaf(B, T, shift=-2), torch.randn(B, T), torch.rand(B, T) * 2
        u = lambda i, t: rollout[i, t].item() if given else 1.0
        loss = total(-WEIGHTS[i][t] * u(i, t) * advantages[i, t].item() * new[i, t] for i, t in COUNTED)
        loss.backward()
        case = {
            "name": "with rollout weights" if given else "plain",
            "logprobs": new,
            "advantages": advantages,
            "tokenWeights": WEIGHTS,
            "expected": {
                "loss": loss.item(),
                "gradient": new.grad,
                "meanLogprob": sum(WEIGHTS[i][t] * new[i, t].item() for i, t in COUNTED),
                "meanRolloutWeight": sum(WEIGHTS[i][t] * u(i, t) for i, t in COUNTED),
            },
        }
        if given:
            case["rolloutWeights"] = rollout
        cases.append(case)
    return cases


def value():
    cases = []
    for clip in [None, 0.2, 1.0]:
        new, old, targets = leaf(B, T), leaf(B, T), leaf(B, T)
        terms, share = [], 0.0
        for i, t in COUNTED:
            target, before = targets[i, t].item(), old[i, t].item()
            error = (new[i, t] - target) ** 2
            if clip is not None:
                held = min(max(new[i, t].item(), before - clip), before + clip)
                is_held = held != new[i, t].item()
                if is_held and (held - target) ** 2 > error.item():
                    error = torch.tensor((held - target) ** 2)
                    share += WEIGHTS[i][t]
            terms.append(WEIGHTS[i][t] * error / 2)
        loss = total(terms)
        loss.backward()
        case = {
            "name": f"clip {clip}",
            "values": new,
            "oldValues": old,
            "returns": targets,
            "tokenWeights": WEIGHTS,
            "expected": {
                "loss": loss.item(),
                "gradient": new.grad,
                "meanValue": sum(WEIGHTS[i][t] * new[i, t].item() for i, t in COUNTED),
                "valueClipFraction": share,
            },
        }
        if clip is not None:
            case["clipRange"] = clip
        cases.append(case)
    return cases


def entropy():
    logits = leaf(B, T, V, scale=2)
    terms = []
    for i, t in COUNTED:
        p = torch.exp(logits[i, t]) / torch.exp(logits[i, t]).sum()
        terms.append(WEIGHTS[i][t] * -(p * torch.log(p)).sum())
    mean = total(terms)
    (-0.3 * mean).backward()
    per_token = torch.distributions.Categorical(logits=logits).entropy()
    masks = []
    for quantile in [0.0, 0.25, 0.8, 1.0]:
        chosen = torch.stack([per_token[i, t] for i, t in COUNTED]).detach()
        threshold = torch.quantile(chosen, quantile).item()
        masks.append(
            {
                "quantile": quantile,
                "expected": [
                    [int(bool(MASK[i][t]) and per_token[i, t].item() >= threshold) for t in range(T)] for i in range(B)
                ],
            }
        )
    return {
        "logits": logits,
        "entropy": per_token,
        "mask": MASK,
        "tokenWeights": WEIGHTS,
        "coef": 0.3,
        "masks": masks,
        "expected": {"loss": -0.3 * mean.item(), "entropy": mean.item(), "gradient": logits.grad},
    }


def preference():
    cases = []
    P, G = 3, 4
    for name, good in [
        ("mixed", [[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 0]]),
        ("one prompt without a good one", [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]]),
        ("one prompt all good", [[1, 1, 1, 1], [0, 0, 1, 0], [0, 1, 0, 0]]),
    ]:
        new, ref, beta = leaf(P, G, scale=4, shift=-30), leaf(P, G, scale=4, shift=-30), 0.3
        terms, shares = [], []
        for p in range(P):
            if not any(good[p]):
                continue
            e = torch.exp(beta * (new[p] - ref[p].detach()))
            share = sum(e[j] for j in range(G) if good[p][j]) / e.sum()
            terms.append(-torch.log(share))
            shares.append(share.item())
        loss = torch.stack(terms).mean()
        loss.backward()
        cases.append(
            {
                "name": name,
                "policyLogprobs": new,
                "refLogprobs": ref,
                "goodMask": good,
                "beta": beta,
                "expected": {
                    "loss": loss.item(),
                    "gradient": new.grad,
                    "goodProbability": sum(shares) / len(shares),
                },
            }
        )
    return cases


def off_policy():
    old, rollout, new = torch.randn(B, T) * 0.5 - 2, torch.randn(B, T) * 0.5 - 2, torch.randn(B, T) * 0.5 - 2
    weights = []
    for level in ["token", "sequence"]:
        for mode in ["truncate", "mask"]:
            cap = 1.1
            expected = [[0.0] * T for _ in range(B)]
            for i, t in COUNTED:
                gap = old - rollout
                ratio = math.exp(gap[i, t].item() if level == "token" else row_mean(gap, i).item())
                expected[i][t] = ratio if ratio <= cap else (cap if mode == "truncate" else 0.0)
            weights.append({"level": level, "mode": mode, "cap": cap, "expected": expected})
    advantages = [-1.0, -0.5, 2.0, -1.0]
    masks = []
    for threshold in [-0.5, 0.0, 0.1, 0.4]:
        kept = []
        for i in range(B):
            drift = row_mean(old - new, i).item() if any(MASK[i]) else 0.0
            kept.append(0 if advantages[i] < 0 and drift > threshold else 1)
        masks.append({"threshold": threshold, "expected": kept})
    return {
        "oldLogprobs": old,
        "rolloutLogprobs": rollout,
        "logprobs": new,
        "mask": MASK,
        "advantages": advantages,
        "weights": weights,
        "masks": masks,
    }


def sequence():
    cases = []
    for average in [False, True]:
        logprobs, upstream = leaf(B, T, shift=-2), torch.randn(B)
        rows = []
        for i in range(B):
            terms = [logprobs[i, t] for t in range(T) if MASK[i][t]]
            rows.append(sum(terms) / (len(terms) if average else 1) if terms else torch.zeros(()))
        result = torch.stack(rows)
        (result * upstream).sum().backward()
        cases.append(
            {
                "average": average,
                "logprobs": logprobs,
                "mask": MASK,
                "upstream": upstream,
                "expected": {"values": result, "gradient": logprobs.grad},
            }
        )
    return cases


write("gspo.json", "objectives.py", SEED, gspo())
write("cispo.json", "objectives.py", SEED, cispo())
write("reinforce.json", "objectives.py", SEED, reinforce())
write("value_loss.json", "objectives.py", SEED, value())
write("entropy.json", "objectives.py", SEED, [entropy()])
write("group_preference.json", "objectives.py", SEED, preference())
write("off_policy.json", "objectives.py", SEED, [off_policy()])
write("sequence_logprob.json", "objectives.py", SEED, sequence())
