"""Small random checkpoints of each family, and what transformers computes with them.

Writes test/golden/models/<name>/ (a model folder and expected.json). Run:

    python tools/golden/models.py

with torch 2.13.0, transformers 5.23.0 and safetensors 0.8.0. Seeds are in the code; the folders are committed.
"""

import json
import shutil
import sys
from pathlib import Path

import safetensors
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

OUT = Path(__file__).parents[2] / "test" / "golden" / "models"
EOS = 1
COMMON = dict(
    vocab_size=96,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    bos_token_id=0,
    eos_token_id=EOS,
    pad_token_id=2,
    initializer_range=0.2,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=500000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)

FAMILIES = {
    "llama-gqa-llama3": lambda: LlamaForCausalLM(
        LlamaConfig(**COMMON, head_dim=16, rope_parameters=LLAMA3, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5)
    ),
    "llama-tied": lambda: LlamaForCausalLM(
        LlamaConfig(**{**COMMON, "num_key_value_heads": 4, "eos_token_id": [EOS, 3]}, tie_word_embeddings=True)
    ),
    "llama-linear": lambda: LlamaForCausalLM(
        LlamaConfig(**COMMON, rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0))
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**COMMON)),
    "qwen2-sharded": lambda: Qwen2ForCausalLM(Qwen2Config(**COMMON, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=16)),
    "qwen3-bfloat16": lambda: Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=16, tie_word_embeddings=True)),
}


def randomize(model, seed):
    """Norm weights and biases too: at their initial ones and zeros a mistake in them would not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(0.2 * noise)


def rounded(tensor):
    return [[[float(f"{value:.7g}") for value in row] for row in rows] for rows in tensor.tolist()]


def greedy(model, prompts, steps):
    """Row by row, without a cache and without padding: nothing that could be wrong in the reference itself."""
    completions = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(steps):
            logits = model(torch.tensor([ids])).logits[0, -1]
            ids.append(int(logits.argmax()))
        completions.append(ids[len(prompt) :])
    return completions


@torch.no_grad()
def expected(model, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = [11, 7, 4]
    rows = [torch.randint(4, 96, (length,), generator=generator).tolist() for length in lengths]
    width = max(lengths)
    cases = {}
    for side in ("none", "left", "right"):
        if side == "none":
            ids = torch.randint(4, 96, (2, 40), generator=generator)
            mask = torch.ones_like(ids)
            logits = model(ids).logits
        else:
            pads = [[2] * (width - len(row)) for row in rows]
            zeros = [[0] * len(pad) for pad in pads]
            ones = [[1] * len(row) for row in rows]
            join = (lambda a, b: a + b) if side == "left" else (lambda a, b: b + a)
            ids = torch.tensor([join(pad, row) for pad, row in zip(pads, rows)])
            mask = torch.tensor([join(zero, one) for zero, one in zip(zeros, ones)])
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            logits = model(ids, attention_mask=mask, position_ids=positions).logits
            # What stands at padding is nobody's business.
            logits = logits * mask.unsqueeze(-1)
        # Every fourth vocabulary entry is enough to tell right from wrong and keeps the file small.
        cases[side] = dict(inputIds=ids.tolist(), attentionMask=mask.tolist(), logits=rounded(logits[..., ::4].float()))
    return dict(
        versions=dict(torch=torch.__version__, transformers=transformers.__version__, safetensors=safetensors.__version__),
        vocabularyStride=4,
        inverseFrequencies=model.model.rotary_emb.inv_freq.tolist(),
        cases=cases,
        prompts=rows,
        greedy=greedy(model, rows, 16),
    )


def main():
    only = sys.argv[1:]
    for seed, (name, make) in enumerate(FAMILIES.items()):
        if only and name not in only:
            continue
        model = make().eval()
        randomize(model, seed)
        if "bfloat16" in name:
            model = model.to(torch.bfloat16)
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, max_shard_size="80KB" if "sharded" in name else "5GB")
        for path in folder.iterdir():
            path.chmod(0o644)
        # bfloat16 weights, float32 arithmetic: rounding at every step would hide mistakes of its own size.
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        (folder / "expected.json").write_text(json.dumps(expected(model, 100 + seed)) + "\n")
        print(name, sum(path.stat().st_size for path in folder.iterdir()) // 1000, "kB")


if __name__ == "__main__":
    main()
