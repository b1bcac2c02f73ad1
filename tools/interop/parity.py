"""Trains the starting model with TRL for 20 steps per method and writes what came of it to test/golden/interop/.

    python tools/interop/parity.py [--save FOLDER] [method ...]

posttrain trains the same in test/interop/ and compares. `--save` keeps TRL's models for trained.ts.
Needs torch, transformers, trl and peft; the versions are in each file.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from reads import reads
from rows import demonstrations, preferences, rollouts
from start import ROOT, SHAPE, TOKENIZER, fill, write_start

OUT = ROOT / "test/golden/interop"
STEPS = 20
BATCH = 8
# Names are those of posttrain's settings.
COMMON = {
    "learningRate": 1e-5,
    "warmupSteps": 3,
    "weightDecay": 0.1,
    "adamBeta1": 0.9,
    "adamBeta2": 0.999,
    "adamEpsilon": 1e-8,
    "maxGradNorm": 1,
}
SAMPLE = 97
GROUP, PROMPTS, PASSES, MAX_NEW = 4, 4, 2, 16


def arguments(batch, schedule="linear", accumulation=1):
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "max_steps": STEPS,
        "learning_rate": COMMON["learningRate"],
        "warmup_steps": COMMON["warmupSteps"],
        "lr_scheduler_type": schedule,
        "weight_decay": COMMON["weightDecay"],
        "adam_beta1": COMMON["adamBeta1"],
        "adam_beta2": COMMON["adamBeta2"],
        "adam_epsilon": COMMON["adamEpsilon"],
        "max_grad_norm": COMMON["maxGradNorm"],
        "model_init_kwargs": {"dtype": "float32"},
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 0,
    }


def recorded(trainer):
    """Trains and returns the loss and the gradient's norm of every optimizer step, unrounded."""
    losses = {}
    step = trainer.training_step

    def training_step(*args, **kwargs):
        loss = step(*args, **kwargs)
        losses[trainer.state.global_step] = losses.get(trainer.state.global_step, 0.0) + float(loss)
        return loss

    trainer.training_step = training_step
    trainer.train()
    norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    return {"losses": list(losses.values()), "gradNorms": [float(n) for n in norms]}


def plain(name):
    """A name without what PEFT's wrappers put into it."""
    return name.removeprefix("base_model.model.").replace(".default.", ".")


def snapshot(model):
    return {plain(name): p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def digest(before):
    sha = hashlib.sha256()
    for name in sorted(before):
        sha.update(before[name].numpy().tobytes())
    return sha.hexdigest()


def moved(before, model):
    """How every trained tensor has changed: the norm of the change, and evenly spaced values of the result."""
    found = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        after = parameter.detach().flatten()
        places = np.arange(min(SAMPLE, after.numel())) * max(1, after.numel() // SAMPLE)
        name = plain(name)
        change = (after.double() - before[name].flatten().double()).norm()
        values = [float(f"{v:.9g}") for v in after[torch.from_numpy(places)].tolist()]
        found[name] = {"change": float(f"{change:.9g}"), "sample": values}
    return found


def run(trainer, data, settings, prepare=lambda model: None):
    prepare(trainer.model)
    before = snapshot(trainer.model)
    trained = recorded(trainer)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    ids = [tokenizer(row["prompt"])["input_ids"] for row in next(iter(data.values()))[:6]]
    return {
        "generator": "tools/interop/parity.py",
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, trl, peft)},
        "shape": SHAPE,
        "startSha256": digest(before),
        "settings": {**COMMON, **settings},
        **data,
        **trained,
        "reads": reads(trainer.model, ids),
        "parameters": moved(before, trainer.model),
    }, trainer.model


def sft(folder):
    rows = demonstrations(STEPS * BATCH, seed=1)
    # Two micro-batches a step: the mean is over the tokens of the step, whose rows have many lengths.
    args = SFTConfig(**arguments(BATCH // 2, "cosine", accumulation=2), max_length=64, completion_only_loss=True)
    trainer = SFTTrainer(write_start(folder), args=args, train_dataset=Dataset.from_list(rows))
    return run(trainer, {"rows": rows}, {"batchSize": BATCH, "maxSteps": STEPS, "schedule": {"kind": "cosine"}})


def reward(folder):
    rows = preferences(STEPS * BATCH, seed=2)
    args = RewardConfig(**arguments(BATCH), max_length=64, center_rewards_coefficient=0.01)
    trainer = RewardTrainer(write_start(folder, scores=True), args=args, train_dataset=Dataset.from_list(rows))
    settings = {"batchSize": BATCH, "maxSteps": STEPS, "centerCoef": 0.01, "schedule": {"kind": "linear", "minRatio": 0}}
    return run(trainer, {"rows": rows}, settings)


def dpo(folder, lora=False):
    rows = preferences(STEPS * BATCH, seed=3)
    args = DPOConfig(**arguments(BATCH), max_length=64, beta=0.1)
    adapter = {"rank": 4, "alpha": 8, "targetModules": ["q_proj", "v_proj", "down_proj"]}
    peft_config = LoraConfig(
        r=adapter["rank"], lora_alpha=adapter["alpha"], target_modules=adapter["targetModules"], task_type="CAUSAL_LM"
    )
    trainer = DPOTrainer(
        write_start(folder),
        args=args,
        train_dataset=Dataset.from_list(rows),
        peft_config=peft_config if lora else None,
    )
    settings = {"batchSize": BATCH, "maxSteps": STEPS, "beta": 0.1, "schedule": {"kind": "linear", "minRatio": 0}}

    def prepare(model):
        # B is not 0, so that the policy is not its reference, which is the model without adapters.
        if lora:
            fill((plain(name), p) for name, p in model.named_parameters() if "lora_" in name)

    return run(trainer, {"rows": rows}, {**settings, **({"lora": adapter} if lora else {})}, prepare)


def grpo(folder, loss_type, unbiased):
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    drawn = rollouts(PROMPTS * STEPS // PASSES, GROUP, tokenizer, MAX_NEW, seed=4)
    table = {row["prompt"]: row["completions"] for row in drawn}
    args = GRPOConfig(
        **arguments(PROMPTS * GROUP),
        num_generations=GROUP,
        num_iterations=PASSES,
        steps_per_generation=1,
        max_completion_length=MAX_NEW,
        shuffle_dataset=False,
        temperature=0.9,
        beta=0.04,
        epsilon=0.2,
        loss_type=loss_type,
        use_bias_correction_kl=unbiased,
    )

    def replay(prompts, trainer):
        completions = [table[prompt][at % GROUP] for at, prompt in enumerate(prompts)]
        ids = [completion["ids"] for completion in completions]
        return {
            "prompt_ids": tokenizer(prompts)["input_ids"],
            "completion_ids": ids,
            "logprobs": [[0.0] * len(tokens) for tokens in ids],
            "score": [completion["score"] for completion in completions],
        }

    trainer = GRPOTrainer(
        write_start(folder),
        reward_funcs=lambda prompts, completions, score, **_: score,
        args=args,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in drawn]),
        rollout_func=replay,
    )
    settings = {
        "steps": STEPS // PASSES,
        "promptsPerStep": PROMPTS,
        "groupSize": GROUP,
        "updatesPerRollout": PASSES,
        "klCoef": 0.04,
        "klEstimator": "k3Unbiased" if unbiased else "k3",
        "clip": {"low": 0.2, "high": 0.2},
        "reduction": {"kind": {"grpo": "sequenceMean", "dapo": "tokenMean"}[loss_type]},
        "sampling": {"maxNewTokens": MAX_NEW, "temperature": 0.9},
        "schedule": {"kind": "linear", "minRatio": 0},
    }
    return run(trainer, {"rollouts": drawn}, settings)


METHODS = {
    "sft": sft,
    "reward": reward,
    "dpo": dpo,
    "loraDpo": lambda folder: dpo(folder, lora=True),
    "grpo": lambda folder: grpo(folder, "grpo", False),
    "dapo": lambda folder: grpo(folder, "dapo", True),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--save", type=Path)
    parser.add_argument("methods", nargs="*", default=list(METHODS))
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for method in options.methods:
        torch.manual_seed(0)
        golden, model = METHODS[method](tempfile.mkdtemp())
        (OUT / f"{method}.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")
        if options.save:
            if method == "loraDpo":
                write_start(options.save / "start")
                model.peft_config["default"].base_model_name_or_path = "../start"
            model.save_pretrained(options.save / method)
            (options.save / method / "reads.json").write_text(json.dumps(golden["reads"]))
        print(method, [round(loss, 6) for loss in golden["losses"]], file=sys.stderr)
