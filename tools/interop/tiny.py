"""Small models that TRL trained and saved, for posttrain to open: test/golden/interop/saved/{causal,reward,adapter}.

    python tools/interop/tiny.py

Each folder is what `trainer.save_model` writes, tokenizer included, with reads.json: what transformers and PEFT make of
it. The adapter folder needs the causal one as its base.
"""

import json
import shutil
import tempfile

import peft
import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from parity import arguments
from reads import reads
from rows import demonstrations, preferences
from start import ROOT, TINY, TOKENIZER, write_start

OUT = ROOT / "test/golden/interop/saved"
# What only TRL and its model cards read.
UNUSED = ["README.md", "training_args.bin", "chat_template.jinja"]


def further(rate, steps=6):
    return {**arguments(8), "learning_rate": rate, "max_steps": steps}


def keep(trainer, name, opened, base=None):
    folder = OUT / name
    trainer.save_model(str(folder))
    for file in UNUSED:
        (folder / file).unlink(missing_ok=True)
    if base:
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "base_model_name_or_path": base}, indent=2) + "\n")
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    rows = [tokenizer(row["prompt"])["input_ids"] for row in demonstrations(6, seed=9)]
    versions = {m.__name__: m.__version__ for m in (torch, transformers, trl, peft)}
    generator = {"generator": "tools/interop/tiny.py", "versions": versions}
    (folder / "reads.json").write_text(json.dumps({**generator, **reads(opened(folder), rows)}) + "\n")


def main():
    torch.manual_seed(0)
    shutil.rmtree(OUT, ignore_errors=True)
    start = write_start(tempfile.mkdtemp(), TINY, std=0.3)
    rows = Dataset.from_list(demonstrations(48, seed=5))
    causal = SFTTrainer(start, args=SFTConfig(**further(1e-2, 60), completion_only_loss=True), train_dataset=rows)
    causal.train()
    keep(causal, "causal", AutoModelForCausalLM.from_pretrained)

    pairs = Dataset.from_list(preferences(48, seed=6))
    start = write_start(tempfile.mkdtemp(), TINY, scores=True, std=0.3)
    reward = RewardTrainer(start, args=RewardConfig(**further(1e-2)), train_dataset=pairs)
    reward.train()
    keep(reward, "reward", AutoModelForSequenceClassification.from_pretrained)

    adapter = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    dpo = DPOTrainer(
        str(OUT / "causal"), args=DPOConfig(**further(2e-2)), train_dataset=pairs, peft_config=adapter
    )
    dpo.train()

    def opened(folder):
        base = AutoModelForCausalLM.from_pretrained(OUT / "causal")
        return peft.PeftModel.from_pretrained(base, folder)

    keep(dpo, "adapter", opened, base="../causal")


if __name__ == "__main__":
    main()
