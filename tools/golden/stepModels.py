"""Small random models with a head of two labels per token, and what transformers computes with them.

Writes test/golden/stepModels/<name>/ (a folder of AutoModelForTokenClassification with two labels, which is what TRL's
PRMTrainer saves, and expected.json). Run:

    python tools/golden/stepModels.py

with torch 2.13.0, transformers 5.18.0 and safetensors. Seeds are in the code; the folders are committed.
"""

import json
import shutil

import safetensors
import torch
import transformers
from models import LLAMA3, randomize
from scalarModels import OUT as SCALARS
from scalarModels import PAD, SMALL, digits
from transformers import (
    AutoModelForTokenClassification,
    LlamaConfig,
    LlamaForTokenClassification,
    Qwen2Config,
    Qwen2ForTokenClassification,
    Qwen3Config,
    Qwen3ForTokenClassification,
)

OUT = SCALARS.parent / "stepModels"
STEPS = {**SMALL, "num_labels": 2}

FAMILIES = {
    "llama-tied": lambda: LlamaForTokenClassification(
        LlamaConfig(**STEPS, rope_parameters=LLAMA3, tie_word_embeddings=True)
    ),
    "qwen2": lambda: Qwen2ForTokenClassification(Qwen2Config(**STEPS)),
    "qwen3-bfloat16": lambda: Qwen3ForTokenClassification(Qwen3Config(**STEPS, head_dim=16)),
}


@torch.no_grad()
def expected(model, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = [11, 7, 4]
    rows = [torch.randint(4, 96, (length,), generator=generator).tolist() for length in lengths]
    width = max(lengths)
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    logits = model(ids, attention_mask=mask).logits
    return dict(
        versions=dict(torch=torch.__version__, transformers=transformers.__version__, safetensors=safetensors.__version__),
        inputIds=ids.tolist(),
        lengths=lengths,
        logits=[[digits(pair) for pair in row[:length]] for row, length in zip(logits.tolist(), lengths)],
    )


def main():
    for seed, (name, make) in enumerate(FAMILIES.items(), start=40):
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
        model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()
        (folder / "expected.json").write_text(json.dumps(expected(model, 100 + seed)) + "\n")
        print(name, sum(path.stat().st_size for path in folder.iterdir()) // 1000, "kB")


if __name__ == "__main__":
    main()
