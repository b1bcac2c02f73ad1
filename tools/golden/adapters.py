"""Adapters of the small models as PEFT saves them, and what PEFT computes with them.

Writes test/golden/adapters/<name>/ (an adapter folder and expected.json) on the bases in test/golden/models. Run:

    python tools/golden/adapters.py

with torch 2.13.0, transformers 5.18.0, peft 0.21.2 and safetensors 0.8.0. Seeds are in the code; the folders are committed.
"""

import json
import shutil
from pathlib import Path

import peft
import safetensors
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

GOLDEN = Path(__file__).parents[2] / "test" / "golden"
OUT = GOLDEN / "adapters"

CAUSAL = (AutoModelForCausalLM, {})
SCALAR = (AutoModelForSequenceClassification, dict(num_labels=1))
STEPS = (AutoModelForTokenClassification, dict(num_labels=2))

CASES = {
    "lora": ("llama-tied", CAUSAL, dict(r=3, lora_alpha=5, target_modules=["q_proj", "v_proj", "mlp.up_proj"])),
    "rslora": (
        "qwen2",
        CAUSAL,
        dict(
            r=4,
            lora_alpha=6,
            use_rslora=True,
            target_modules="all-linear",
            modules_to_save=["lm_head", "model.norm"],
            rank_pattern={"down_proj": 2},
            alpha_pattern={"layers.1.self_attn.o_proj": 3},
        ),
    ),
    "dora": ("llama-gqa-llama3", CAUSAL, dict(r=3, lora_alpha=4, use_dora=True, target_modules="all-linear")),
    "dora-rslora-pattern": (
        "qwen3",
        CAUSAL,
        dict(r=2, lora_alpha=3, use_dora=True, use_rslora=True, target_modules=r".*\.(1\.self_attn|0\.mlp)\.\w+_proj"),
    ),
    "head": ("qwen2", CAUSAL, dict(r=2, lora_alpha=4, use_dora=True, target_modules=["lm_head", "k_proj"])),
    "scalar": ("qwen2", SCALAR, dict(r=2, lora_alpha=4, target_modules="all-linear", task_type="SEQ_CLS")),
    "steps": ("llama-tied", STEPS, dict(r=2, lora_alpha=4, target_modules=["o_proj", "down_proj"], task_type="TOKEN_CLS")),
}


def randomize(model, seed):
    """B too, which would be zero, and what is saved as a whole: at the base's own values a mistake would not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if "magnitude" in name or "norm" in name:
                parameter.mul_(1 + 0.2 * noise)
            elif "lora" in name:
                parameter.copy_(0.3 * noise)
            else:
                parameter.add_(0.2 * noise)


def digits(values):
    return [float(f"{value:.9g}") for value in values]


def nested(tensor):
    return digits(tensor.tolist()) if tensor.ndim == 1 else [nested(row) for row in tensor]


def expected(model, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 96, (2, 9), generator=generator)
    with torch.no_grad():
        outputs = outputs_of(model, ids)
    # In float64, so that the last digits are not a matter of taste.
    model = model.double()
    weights = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    (outputs_of(model, ids) * weights).sum().backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradients[plain(name)] = parameter.grad
    chosen = [name for name in gradients if "layers" not in name or ".1.self_attn" in name or ".0.mlp" in name]
    rows = {name: nested(gradients[name][:2]) for name in chosen}
    return dict(
        versions=dict(
            torch=torch.__version__,
            transformers=transformers.__version__,
            peft=peft.__version__,
            safetensors=safetensors.__version__,
        ),
        inputIds=ids.tolist(),
        # Every fourth vocabulary entry, as in models.py; all of a head.
        outputs=nested(outputs[..., ::4] if outputs.shape[-1] == 96 else outputs),
        outputWeights=nested(weights),
        # The first two rows of some gradients, and the squared norm of all.
        gradients=rows,
        squaredNorms={name: float(gradient.square().sum()) for name, gradient in gradients.items()},
    )


def outputs_of(model, ids):
    """Logits, or what a head reads at every position: the classes that pool would show the last one alone."""
    base = model.get_base_model()
    if not hasattr(base, "score"):
        return model(ids).logits
    return base.score(base.model(ids).last_hidden_state)


def plain(name):
    name = name.removeprefix("base_model.model.").replace(".default", "").replace(".modules_to_save", "")
    return name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def main():
    for seed, (name, (base, (kind, options), settings)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        model = kind.from_pretrained(GOLDEN / "models" / base, dtype=torch.float32, **options)
        adapted = get_peft_model(model, LoraConfig(**settings))
        randomize(adapted, 200 + seed)
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink()
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = f"../../models/{base}"
        if isinstance(config["target_modules"], list):
            config["target_modules"].sort()  # a set there, whose order changes from run to run
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        # What was saved, and not what was in memory.
        model = kind.from_pretrained(GOLDEN / "models" / base, dtype=torch.float32, **options)
        loaded = PeftModel.from_pretrained(model, folder, is_trainable=True).eval()
        (folder / "expected.json").write_text(json.dumps(expected(loaded, 300 + seed)) + "\n")
        for path in folder.iterdir():
            path.chmod(0o644)
        print(name, sum(path.stat().st_size for path in folder.iterdir()) // 1000, "kB")


if __name__ == "__main__":
    main()
