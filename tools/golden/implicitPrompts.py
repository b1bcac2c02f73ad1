"""Writes test/golden/implicitPrompts.json: how TRL finds the prompt that a chosen and a rejected text share.

Run with trl installed:

    python tools/golden/implicitPrompts.py

Nothing is random.
"""

import json
import os

import trl
from trl.data_utils import extract_prompt

PATH = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "implicitPrompts.json")

USER = {"role": "user", "content": "Sum?"}
FOUR = {"role": "assistant", "content": "4"}
FIVE = {"role": "assistant", "content": "5"}
THANKS = {"role": "user", "content": "Thanks"}

PAIRS = [
    ("The sky is blue.", "The sky is green."),
    ("The sky is blue.", "The sky isn't."),
    ("1+1=2", "1+1=3"),
    ("1+1=2", "1+1=22"),
    ("1+1=22", "1+1=2"),
    ("a", "b"),
    (" a", " b"),
    ("  a", "  b"),
    ("a", "ab"),
    ("ends with a space ", "ends with a spacex"),
    ("smile 😀!", "smile 😁!"),
    ("smile😀a", "smile😀b"),
    ([USER, FOUR], [USER, FIVE]),
    ([USER, FOUR, THANKS, FIVE], [USER, FOUR, THANKS, FOUR]),
    ([USER, FOUR], [USER, FOUR, THANKS, FIVE]),
    ([FOUR], [FIVE]),
]

cases = [{"pair": pair, "expected": extract_prompt({"chosen": pair[0], "rejected": pair[1]})} for pair in PAIRS]
with open(PATH, "w", encoding="utf-8") as file:
    json.dump(
        {"generator": "tools/golden/implicitPrompts.py", "versions": {"trl": trl.__version__}, "seed": None, "cases": cases},
        file,
        indent=1,
        ensure_ascii=False,
    )
    file.write("\n")
