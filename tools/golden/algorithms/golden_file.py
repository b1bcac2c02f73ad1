"""Writes one file of test/golden/algorithms: where the numbers come from, then the cases.

JSON has no NaN and no infinity: they are written as the strings "NaN", "Infinity" and "-Infinity".
"""

import json
import math
import os
import platform

import torch

FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "..", "test", "golden", "algorithms")


def plain(value):
    if isinstance(value, torch.Tensor):
        value = value.detach().tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def write(name, generator, seed, cases, **versions):
    header = {
        "generator": f"tools/golden/algorithms/{generator}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **versions},
        "seed": seed,
        "dtype": "float64",
    }
    os.makedirs(FOLDER, exist_ok=True)
    with open(os.path.join(FOLDER, name), "w", encoding="utf-8") as file:
        head = json.dumps(header, indent=1)[:-2]
        lines = ",\n".join(json.dumps(plain(case), separators=(",", ":")) for case in cases)
        file.write(f'{head},\n "cases": [\n{lines}\n]}}\n')
    print(name, len(cases), "cases")
