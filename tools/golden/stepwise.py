"""Writes test/golden/stepwise.json: what TRL's PRMTrainer.tokenize_row makes of stepwise rows.

    python tools/golden/stepwise.py

with TRL 1.13.0 and the tokenizers in test/golden/tokenizers, as transformers opens them.
"""

import json
from pathlib import Path

import transformers
import trl
from transformers import AutoTokenizer
from trl.experimental.prm import PRMTrainer

GOLDEN = Path(__file__).parents[2] / "test" / "golden"

ROWS = [
    dict(
        prompt="Which number is larger, 9.8 or 9.11?",
        completions=["11 is greater than 8.", "Hence, 9.11 > 9.8."],
        labels=[True, False],
    ),
    dict(prompt="2 + 3 + 4 =", completions=["2 + 3 = 5", "5 + 4 = 9", " so: 9"], labels=[True, True, True]),
    dict(prompt="Größe?", completions=["ein Schritt – naïve", "日本"], labels=[False, True]),
]


def main():
    cases = []
    for name in ["qwen", "llama3", "sentencepiece"]:
        tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "tokenizers" / name)
        for separator in ["\n", "\n\n", " ки "]:
            for row in ROWS:
                made = PRMTrainer.tokenize_row(
                    row,
                    tokenizer,
                    separator,
                    max_length=None,
                    max_completion_length=None,
                    train_on_last_step_only=False,
                    is_eval=False,
                )
                cases.append(dict(tokenizer=name, separator=separator, row=row, **made))
    header = dict(
        generator="tools/golden/stepwise.py", versions=dict(trl=trl.__version__, transformers=transformers.__version__)
    )
    text = json.dumps(header)[:-1] + ', "cases": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]}\n"
    (GOLDEN / "stepwise.json").write_text(text)
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
