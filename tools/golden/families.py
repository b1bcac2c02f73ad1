"""Small random checkpoints of every family and kind of rotary positions, and what transformers computes with them.

Writes test/golden/families/<name>/ (config.json, expected.json and, but for the kinds of rotary positions, which share one
file, model.safetensors). Run:

    python tools/golden/families.py

with torch 2.13.0, transformers 5.18.0 and safetensors 0.8.0. Seeds are in the code; the folders are committed.

transformers takes the frequencies of "dynamic" and "longrope" from the longest row of a batch, and with "dynamic" from the
longest row that it has ever seen. posttrain takes them from each row, so that a row's logits do not depend on its company:
for these kinds the logits are computed row by row, each with a fresh state.
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
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

OUT = Path(__file__).parents[2] / "test" / "golden" / "families"
VOCABULARY = 64
STRIDE = 8
ROPE_WEIGHTS = "rope-yarn"
IDS = dict(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, pad_token_id=2)
COMMON = dict(
    **IDS,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    head_dim=8,
)
EXPERTS = dict(
    num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, norm_topk_prob=True, mlp_only_layers=[1], decoder_sparse_step=1
)
FACTORS = dict(short_factor=[1.0, 1.1, 1.3, 1.7], long_factor=[1.5, 3.0, 6.0, 9.0])


def rope(positions=16, **parameters):
    return lambda: LlamaConfig(
        **{**COMMON, "max_position_embeddings": positions}, rope_parameters=dict(rope_theta=1000.0, **parameters)
    )


def gemma3():
    return Gemma3TextConfig(
        **{**COMMON, "num_hidden_layers": 4},
        sliding_window=5,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        query_pre_attn_scalar=24,
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", rope_theta=5000.0, factor=4.0),
            sliding_attention=dict(rope_type="default", rope_theta=100.0),
        ),
    )


FAMILIES = {
    "mistral": lambda: MistralConfig(**{**COMMON, "num_hidden_layers": 3}, sliding_window=6),
    "mistral-no-window": lambda: MistralConfig(**COMMON, sliding_window=None, tie_word_embeddings=True),
    "gpt2": lambda: GPT2Config(**IDS, n_embd=16, n_layer=2, n_head=4, n_positions=48, n_inner=40),
    "gemma2": lambda: Gemma2Config(
        **{**COMMON, "num_hidden_layers": 3}, sliding_window=5, query_pre_attn_scalar=20, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
    ),
    "gemma3": gemma3,
    "phi3": lambda: Phi3Config(
        **{key: value for key, value in COMMON.items() if key != "head_dim"},
        sliding_window=7,
        original_max_position_embeddings=16,
        rope_parameters=dict(rope_type="longrope", rope_theta=1000.0, partial_rotary_factor=0.5, short_factor=[1.2], long_factor=[4.0]),
    ),
    "qwen2-window": lambda: Qwen2Config(
        **{key: value for key, value in COMMON.items() if key != "head_dim"}, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "qwen3-window": lambda: Qwen3Config(
        **COMMON, use_sliding_window=True, sliding_window=6, layer_types=["sliding_attention", "full_attention"], tie_word_embeddings=True
    ),
    "qwen3-moe": lambda: Qwen3MoeConfig(**COMMON, **EXPERTS),
    "rope-yarn": rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    "rope-yarn-mscale": rope(
        rope_type="yarn",
        factor=8.0,
        original_max_position_embeddings=16,
        mscale=0.7,
        mscale_all_dim=0.4,
        beta_fast=4.0,
        beta_slow=0.5,
        truncate=False,
    ),
    "rope-yarn-attention-factor": rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=0.8),
    "rope-dynamic": rope(rope_type="dynamic", factor=3.0),
    "rope-longrope": rope(64, rope_type="longrope", factor=4.0, original_max_position_embeddings=16, **FACTORS),
    "rope-longrope-attention-factor": rope(
        64, rope_type="longrope", original_max_position_embeddings=8, attention_factor=1.3, **FACTORS
    ),
    "rope-old-yarn": rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
}


def old_spelling(config):
    """As transformers 4 wrote it, for transformers 5 to read."""
    scaling = config.pop("rope_parameters")
    return {**config, "rope_theta": scaling.pop("rope_theta"), "rope_scaling": {"type": scaling.pop("rope_type"), **scaling}}


def randomize(model, seed):
    """Norm weights and biases too: at their initial ones and zeros a mistake in them would not show."""
    generator = torch.Generator().manual_seed(seed)
    centred_at_one = not model.config.model_type.startswith("gemma")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = ("norm" in name or ".ln_" in name) and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if is_norm and centred_at_one else 0.3 * noise)


def fresh(model):
    """Frequencies as if no row had been seen before."""
    for module in model.modules():
        if hasattr(module, "original_inv_freq"):
            module.inv_freq = module.original_inv_freq
            module.max_seq_len_cached = module.original_max_seq_len


def depends_on_length(model):
    parameters = getattr(model.config, "rope_parameters", None) or {}
    return parameters.get("rope_type") in ("dynamic", "longrope")


def logits_of(model, ids, **inputs):
    fresh(model)
    return model(ids, **inputs).logits


def greedy(model, prompts, steps):
    """Row by row, without a cache and without padding: nothing that could be wrong in the reference itself."""
    completions = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(steps):
            ids.append(int(logits_of(model, torch.tensor([ids]))[0, -1].argmax()))
        completions.append(ids[len(prompt) :])
    return completions


def rounded(tensor):
    return [[[float(f"{value:.7g}") for value in row] for row in rows] for rows in tensor[..., ::STRIDE].tolist()]


def padded(model, rows, side):
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), 2)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    alone = torch.zeros((len(rows), width, VOCABULARY))
    for index, row in enumerate(rows):
        start = width - len(row) if side == "left" else 0
        ids[index, start : start + len(row)] = torch.tensor(row)
        mask[index, start : start + len(row)] = 1
        alone[index, start : start + len(row)] = logits_of(model, torch.tensor([row]))[0]
    if depends_on_length(model):
        return ids, mask, alone
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    together = logits_of(model, ids, attention_mask=mask, position_ids=positions) * mask.unsqueeze(-1)
    assert (together - alone).abs().max() < 2e-5, "transformers' own padding"
    return ids, mask, together


@torch.no_grad()
def expected(model, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(4, VOCABULARY, (length,), generator=generator).tolist() for length in (19, 9, 4)]
    cases = {}
    for side in ("left", "right"):
        ids, mask, logits = padded(model, rows, side)
        cases[side] = dict(inputIds=ids.tolist(), attentionMask=mask.tolist(), logits=rounded(logits))
    ids = torch.randint(4, VOCABULARY, (1, 40), generator=generator)
    cases["none"] = dict(inputIds=ids.tolist(), attentionMask=torch.ones_like(ids).tolist(), logits=rounded(logits_of(model, ids)))
    return dict(
        generator="tools/golden/families.py",
        seed=seed,
        versions=dict(torch=torch.__version__, transformers=transformers.__version__, safetensors=safetensors.__version__),
        vocabularyStride=STRIDE,
        cases=cases,
        prompts=rows,
        greedy=greedy(model, rows, 26),
    )


def main():
    only = sys.argv[1:]
    for seed, (name, config) in enumerate(FAMILIES.items()):
        if only and name not in only:
            continue
        is_rope = name.startswith("rope-")
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        model = AutoModelForCausalLM.from_config(config()).eval()
        randomize(model, 0 if is_rope else seed)
        model.save_pretrained(folder)
        if name == "rope-old-yarn":
            path = folder / "config.json"
            path.write_text(json.dumps(old_spelling(json.loads(path.read_text())), indent=2) + "\n")
        # Softcapping is computed by the plain implementation of attention only.
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        result = expected(model, 100 + seed)
        if is_rope and name != ROPE_WEIGHTS:
            (folder / "model.safetensors").unlink()
            result["weights"] = ROPE_WEIGHTS
        (folder / "expected.json").write_text(json.dumps(result) + "\n")
        (folder / "generation_config.json").unlink(missing_ok=True)
        for path in folder.iterdir():
            path.chmod(0o644)
        print(name, sum(path.stat().st_size for path in folder.iterdir()) // 1000, "kB")


if __name__ == "__main__":
    main()
