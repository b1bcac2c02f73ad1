"""Writes bradley_terry, process_reward and step_scores.

    python tools/golden/algorithms/reward_models.py

with torch 2.13.0, transformers and TRL 1.13.0. The first runs RewardTrainer.compute_loss of TRL as it is on given scores
(only the model and the accelerator around it are replaced) and, for weighted pairs, writes the sum out pair by pair. The
second is torch's cross_entropy as transformers calls it for AutoModelForTokenClassification (ignore_index −100, mean).
The third folds lists of numbers.
"""

import math
from collections import defaultdict
from types import SimpleNamespace

import torch
import trl
from golden_file import write
from trl.trainer.reward_trainer import RewardTrainer

SEED = 211
torch.manual_seed(SEED)
torch.set_default_dtype(torch.float64)


def reward_trainer(center):
    """A RewardTrainer without its constructor: only the attributes that the loss reads."""
    made = object.__new__(RewardTrainer)
    made.args = SimpleNamespace(center_rewards_coefficient=center)
    made.model = SimpleNamespace(training=False)
    made._metrics = {"eval": defaultdict(list)}
    made._total_train_tokens = 0
    made.accelerator = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x)
    return made


def bradley_terry():
    cases = []
    B = 5
    for name, center, has_margins, scale in [
        ("plain", None, False, 1.0),
        ("margins", None, True, 1.0),
        ("centred", 0.01, False, 2.0),
        ("margins and centred", 0.3, True, 2.0),
        ("far apart", 0.001, True, 60.0),
    ]:
        chosen = (torch.randn(B) * scale + 0.3).requires_grad_()
        rejected = (torch.randn(B) * scale).requires_grad_()
        margins = torch.randn(B).abs()
        made = reward_trainer(center)
        inputs = {"margin": margins} if has_margins else {}
        logits = torch.cat([chosen, rejected]).unsqueeze(-1)
        model = lambda **_: SimpleNamespace(logits=logits)  # noqa: E731
        loss = made.compute_loss(model, inputs)
        loss.backward()
        metrics = made._metrics["eval"]
        cases.append(
            {
                "name": name,
                "chosenRewards": chosen,
                "rejectedRewards": rejected,
                **({"margins": margins} if has_margins else {}),
                **({"centerCoef": center} if center is not None else {}),
                "expected": {
                    "loss": loss.item(),
                    "chosenGradient": chosen.grad,
                    "rejectedGradient": rejected.grad,
                    # TRL takes this mean in float32.
                    "accuracy": sum(float(a > b) for a, b in zip(chosen.tolist(), rejected.tolist())) / B,
                    "margin": metrics["margin"][0],
                    "chosenReward": chosen.mean().item(),
                    "rejectedReward": rejected.mean().item(),
                },
            }
        )
    cases.append(weighted(B))
    return cases


def weighted(B):
    """Three pairs of one comparison of three completions, and two comparisons of a pair."""
    chosen = torch.randn(B).requires_grad_()
    rejected = torch.randn(B).requires_grad_()
    margins, center = torch.rand(B), 0.05
    weights = [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 3]
    terms = []
    for i in range(B):
        lead = chosen[i] - rejected[i] - margins[i]
        terms.append(weights[i] * (torch.log1p(torch.exp(-lead)) + center * (chosen[i] + rejected[i]) ** 2))
    loss = sum(terms)
    loss.backward()
    c, r = chosen.tolist(), rejected.tolist()
    return {
        "name": "weights of a 3-way comparison and two pairs",
        "chosenRewards": chosen,
        "rejectedRewards": rejected,
        "margins": margins,
        "centerCoef": center,
        "weights": weights,
        "expected": {
            "loss": loss.item(),
            "chosenGradient": chosen.grad,
            "rejectedGradient": rejected.grad,
            "accuracy": math.fsum(w for w, a, b in zip(weights, c, r) if a > b),
            "margin": math.fsum(w * (a - b) for w, a, b in zip(weights, c, r)),
            "chosenReward": math.fsum(w * a for w, a in zip(weights, c)),
            "rejectedReward": math.fsum(w * b for w, b in zip(weights, r)),
        },
    }


def process_reward():
    cases = []
    B, S = 4, 5
    for name, lengths, scale in [
        ("every step", [5, 5, 5, 5], 1.0),
        ("ragged", [5, 2, 1, 4], 2.0),
        ("a row without a step", [3, 0, 5, 1], 1.0),
        ("sure of itself", [5, 4, 3, 2], 40.0),
    ]:
        logits = (torch.randn(B, S, 2) * scale).requires_grad_()
        labels = torch.randint(0, 2, (B, S))
        mask = torch.tensor([[1 if s < n else 0 for s in range(S)] for n in lengths])
        targets = labels.where(mask == 1, torch.tensor(-100))
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 2), targets.reshape(-1))
        loss.backward()
        rows = [(i, s) for i in range(B) for s in range(S) if mask[i, s]]
        p = logits.detach().softmax(-1)[..., 1]
        n = len(rows)
        cases.append(
            {
                "name": name,
                "stepLogits": logits,
                "stepLabels": labels,
                "stepMask": mask,
                "expected": {
                    "loss": loss.item(),
                    "gradient": logits.grad,
                    "accuracy": sum(int(logits[k].argmax() == labels[k]) for k in rows) / n,
                    "rightShare": sum(int(labels[k]) for k in rows) / n,
                    "rightProbability": math.fsum(p[k].item() for k in rows if labels[k] == 1) / n,
                    "wrongProbability": math.fsum(p[k].item() for k in rows if labels[k] == 0) / n,
                },
            }
        )
    return cases


def step_scores():
    B, S = 4, 5
    lengths = [5, 1, 3, 4]
    scores = torch.rand(B, S)
    mask = [[1 if s < n else 0 for s in range(S)] for n in lengths]
    mask[3] = [0, 1, 0, 1, 0]
    rows = [[scores[i, s].item() for s in range(S) if mask[i][s]] for i in range(B)]
    return [
        {"kind": "product", "stepScores": scores, "stepMask": mask, "expected": [math.prod(row) for row in rows]},
        {"kind": "min", "stepScores": scores, "stepMask": mask, "expected": [min(row) for row in rows]},
        {"kind": "last", "stepScores": scores, "stepMask": mask, "expected": [row[-1] for row in rows]},
    ]


write("bradley_terry.json", "reward_models.py", SEED, bradley_terry(), trl=trl.__version__)
write("process_reward.json", "reward_models.py", SEED, process_reward())
write("step_scores.json", "reward_models.py", SEED, step_scores())
