"""Whole steps of TRL's trainers on the model and the rows that our side trains on, with settings that compute the same.

Wall time between the ends of steps, the first ones not counted. Nothing is logged, saved or evaluated, and gradients are
not checkpointed.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import json
import tempfile
import time

import torch
import transformers
import trl
from datasets import Dataset, disable_progress_bars
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from worker import read_job, report


def reward_of(completions, **_):
    """Our side computes the same number from the same character."""
    return [float(ord(text[0]) % 5) if text else 0.0 for text in completions]


class StepClock(TrainerCallback):
    def __init__(self):
        self.ends = []

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())


def counting(trainer, counts, keys):
    """Adds up what the masks of each loss keep: the tokens of prompts and completions, padding not counted."""
    compute_loss = trainer.compute_loss

    def compute(model, inputs, *args, **kwargs):
        counts.append(sum(int(inputs[key].sum()) for key in keys))
        return compute_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute


def main():
    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    job = read_job()
    method, rows = job["method"], job["rows"]
    online = method == "grpo"
    dtype = torch.bfloat16 if job["dtype"] == "bfloat16" else torch.float32
    with open(job["data"], encoding="utf-8") as file:
        data = Dataset.from_list([json.loads(line) for line in file])
    # As tokenizer.json says, whatever the family of the model has.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(job["model"])
    if method == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(job["model"], num_labels=1, dtype=dtype)
        model.config.pad_token_id = tokenizer.pad_token_id
    else:
        model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype)
    common = {
        "output_dir": tempfile.mkdtemp(prefix="posttrain-bench-"),
        "max_steps": job["warmUpSteps"] + job["rounds"],
        "per_device_train_batch_size": rows * job["groupSize"],
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "bf16": job["dtype"] == "mixed",
        "use_cpu": True,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "save_strategy": "no",
        "eval_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    peft_config = None
    if job.get("lora"):
        from peft import LoraConfig

        peft_config = LoraConfig(
            r=job["lora"]["rank"],
            lora_alpha=job["lora"]["alpha"],
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    clock = StepClock()
    shared = {"model": model, "train_dataset": data, "callbacks": [clock], "processing_class": tokenizer}
    keys = ["attention_mask"]
    if method == "sft":
        trainer = trl.SFTTrainer(args=trl.SFTConfig(**common), **shared)
    elif method == "dpo":
        trainer = trl.DPOTrainer(args=trl.DPOConfig(**common), **shared)
    elif method == "reward":
        trainer = trl.RewardTrainer(args=trl.RewardConfig(**common), **shared)
    else:
        # An end token that the model has no logit for: every completion gets its full length, at no cost.
        tokenizer.add_special_tokens({"eos_token": "<never>"})
        args = trl.GRPOConfig(
            num_generations=job["groupSize"],
            max_completion_length=job["newTokens"],
            temperature=1.0,
            beta=job["klCoef"],
            loss_type="grpo",
            num_iterations=1,
            **common,
        )
        trainer = trl.GRPOTrainer(args=args, reward_funcs=reward_of, peft_config=peft_config, **shared)
        keys = ["prompt_mask", "completion_mask"]
    counts = []
    counting(trainer, counts, keys)
    trainer.train()
    warm = job["warmUpSteps"]
    seconds = [end - start for start, end in zip(clock.ends, clock.ends[1:])][warm - 1 :]
    tokens = counts[warm:]
    report(
        {"tokens/s": [count / time for count, time in zip(tokens, seconds)], "tokens per step": tokens},
        {"trl": trl.__version__, "transformers": transformers.__version__},
    )


main()
