"""Opens adapters that posttrain saved with PEFT and compares what both compute; see savedAdapters.ts.

    npx tsx tools/golden/savedAdapters.ts /tmp/adapters && python tools/golden/checkSavedAdapters.py /tmp/adapters

Exits with 1 when PEFT misses or ignores a tensor, warns, or computes other outputs: by more than 1e-5 of the largest one in
float32. Also loads each adapter the way a user does, AutoPeftModel, where it is of a language model.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM, PeftConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()

KINDS = {
    "CAUSAL_LM": (AutoModelForCausalLM, {}),
    "SEQ_CLS": (AutoModelForSequenceClassification, dict(num_labels=1)),
    "TOKEN_CLS": (AutoModelForTokenClassification, dict(num_labels=2)),
}

# Gemma 2 caps its scores, which the fused kernel leaves out.
PLACED = dict(dtype=torch.float32, attn_implementation="eager")


def outputs_of(model, ids):
    base = model.get_base_model()
    if not hasattr(base, "score"):
        return model(ids).logits
    return base.score(base.model(ids).last_hidden_state)


@torch.no_grad()
def check(folder):
    ours = json.loads((folder / "ours.json").read_text())
    config = PeftConfig.from_pretrained(folder)
    kind, options = KINDS[config.task_type]
    ids = torch.tensor(ours["inputIds"])
    base = kind.from_pretrained(config.base_model_name_or_path, **PLACED, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, folder).eval()
    faults = [str(w.message).splitlines()[0] for w in caught if "missing" in str(w.message) or "unexpected" in str(w.message)]
    expected = torch.tensor(ours["outputs"])
    scale = max(1.0, float(expected.abs().max()))
    difference = float((outputs_of(model, ids) - expected).abs().max()) / scale
    if config.task_type == "CAUSAL_LM":
        opened = AutoPeftModelForCausalLM.from_pretrained(folder, **PLACED).eval()
        difference = max(difference, float((outputs_of(opened, ids) - expected).abs().max()) / scale)
    good = not faults and difference <= 1e-5
    print(f"{'ok  ' if good else 'FAIL'} {folder.name}: {config.task_type}, max difference {difference:.2e}", faults or "")
    return good


if __name__ == "__main__":
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    results = [check(folder) for folder in folders]
    print(f"{sum(results)} of {len(results)} adapters are as they should be")
    sys.exit(0 if results and all(results) else 1)
