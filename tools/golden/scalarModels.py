"""Small random models with a scalar head, and what transformers computes with them.

Writes test/golden/scalarModels/<name>/ (a folder of AutoModelForSequenceClassification with one label, and
expected.json). Run:

    python tools/golden/scalarModels.py

with torch 2.13.0, transformers 5.23.0 and safetensors 0.8.0. Seeds are in the code; the folders are committed.
"""

import json
import shutil
from pathlib import Path

import safetensors
import torch
import transformers
from models import COMMON, LLAMA3, randomize
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

OUT = Path(__file__).parents[2] / "test" / "golden" / "scalarModels"
PAD = 2
SMALL = {**COMMON, "hidden_size": 32, "intermediate_size": 48, "num_labels": 1}

FAMILIES = {
    "llama-tied": lambda: LlamaForSequenceClassification(
        LlamaConfig(**SMALL, rope_parameters=LLAMA3, tie_word_embeddings=True)
    ),
    "qwen2": lambda: Qwen2ForSequenceClassification(Qwen2Config(**SMALL)),
    "qwen3-bfloat16": lambda: Qwen3ForSequenceClassification(Qwen3Config(**SMALL, head_dim=16)),
}


def digits(values):
    return [float(f"{value:.7g}") for value in values]


@torch.no_grad()
def expected(model, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = [11, 7, 4]
    rows = [torch.randint(4, 96, (length,), generator=generator).tolist() for length in lengths]
    width = max(lengths)
    cases = {}
    for side in ("left", "right"):
        join = (lambda pad, row: pad + row) if side == "left" else (lambda pad, row: row + pad)
        ids = torch.tensor([join([PAD] * (width - len(row)), row) for row in rows])
        mask = torch.tensor([join([0] * (width - len(row)), [1] * len(row)) for row in rows])
        # transformers looks for the last token that is not padding.
        scores = model(ids, attention_mask=mask).logits.squeeze(-1)
        cases[side] = dict(inputIds=ids.tolist(), attentionMask=mask.tolist(), scores=digits(scores.tolist()))
    # Row by row and without padding: the head at every position.
    values = [model.score(model.model(torch.tensor([row])).last_hidden_state)[0, :, 0].tolist() for row in rows]
    return dict(
        versions=dict(torch=torch.__version__, transformers=transformers.__version__, safetensors=safetensors.__version__),
        lengths=lengths,
        cases=cases,
        values=[digits(row) for row in values],
    )


def main():
    for seed, (name, make) in enumerate(FAMILIES.items(), start=20):
        model = make().eval()
        randomize(model, seed)
        if "bfloat16" in name:
            model = model.to(torch.bfloat16)
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        for path in folder.iterdir():
            path.chmod(0o644)
        # bfloat16 weights, float32 arithmetic, as in models.py.
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        (folder / "expected.json").write_text(json.dumps(expected(model, 100 + seed)) + "\n")
        print(name, sum(path.stat().st_size for path in folder.iterdir()) // 1000, "kB")


if __name__ == "__main__":
    main()
