"""Distributions over the next token under the logits processors of transformers.

    python tools/golden/sampling.py > test/golden/sampling.json

Needs torch and transformers; the versions are in the file. Cases: every setting alone, pairs, and all together, on
random, peaked and flat logits.
No two logits are tied: among tied tokens transformers cuts by sort order, and ours keeps all.
"""

import json
import math

import torch
import transformers
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

torch.manual_seed(20260801)
VOCABULARY = 12
ROWS = {
    "random": torch.randn(VOCABULARY, dtype=torch.float64).mul(2),
    "peaked": torch.randn(VOCABULARY, dtype=torch.float64).mul(6),
    "flat": torch.randn(VOCABULARY, dtype=torch.float64).mul(0.1),
}
SEEN = [1, 4, 4, 7]

# In the order in which transformers applies them.
SETTINGS = [
    dict(temperature=0.7),
    dict(temperature=1.5),
    dict(topK=3),
    dict(topP=0.6),
    dict(minP=0.2),
    dict(repetitionPenalty=1.3),
    dict(temperature=0.7, topK=5),
    dict(temperature=1.5, topP=0.8),
    dict(temperature=2.0, minP=0.3),
    dict(topK=4, topP=0.7),
    dict(topP=0.9, minP=0.15),
    dict(topK=6, minP=0.25),
    dict(repetitionPenalty=1.7, topK=4),
    dict(repetitionPenalty=0.6, temperature=0.8, topP=0.75),
    dict(repetitionPenalty=1.2, temperature=1.3, topK=7, topP=0.85, minP=0.1),
]


def processors(settings):
    if "repetitionPenalty" in settings:
        yield RepetitionPenaltyLogitsProcessor(settings["repetitionPenalty"])
    if "temperature" in settings:
        yield TemperatureLogitsWarper(settings["temperature"])
    if "topK" in settings:
        yield TopKLogitsWarper(settings["topK"])
    if "topP" in settings:
        yield TopPLogitsWarper(settings["topP"])
    if "minP" in settings:
        yield MinPLogitsWarper(settings["minP"])


def distribution(logits, settings):
    scores = logits.unsqueeze(0).clone()
    ids = torch.tensor([SEEN])
    for processor in processors(settings):
        scores = processor(ids, scores)
    return [float(f"{value:.12g}") for value in scores.softmax(-1)[0].tolist()]


def main():
    cases = [
        dict(row=name, settings=settings, probabilities=distribution(logits, settings))
        for name, logits in ROWS.items()
        for settings in SETTINGS
    ]
    assert all(math.isclose(sum(case["probabilities"]), 1) for case in cases)
    versions = dict(torch=torch.__version__, transformers=transformers.__version__)
    rows = {name: logits.tolist() for name, logits in ROWS.items()}
    print(json.dumps(dict(versions=versions, seen=SEEN, rows=rows, cases=cases)))


if __name__ == "__main__":
    main()
