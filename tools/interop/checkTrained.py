"""Opens models that posttrain trained and saved (see trained.ts) with transformers and PEFT, and compares what they say.

    python tools/interop/checkTrained.py /tmp/interop/posttrain /tmp/interop/trl/start

The second folder is the base of adapters, which PEFT puts on it.

Exits with 1 when a tensor is missing or ignored, a greedy continuation is another one, or logits or scores differ by
more than 1e-5.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from reads import reads


def check(folder, base):
    ours = json.loads((folder / "reads.json").read_text())
    opens = AutoModelForSequenceClassification if "scores" in ours else AutoModelForCausalLM
    adapted = (folder / "adapter_config.json").exists()
    model, info = opens.from_pretrained(base if adapted else folder, output_loading_info=True)
    if adapted:
        model = PeftModel.from_pretrained(model, folder)
    faults = {key: value for key, value in info.items() if value}
    found = reads(model, ours["rows"])
    key = "scores" if "scores" in ours else "logits"
    difference = float((torch.tensor(found[key]).double() - torch.tensor(ours[key]).double()).abs().max())
    same = found.get("greedy") == ours.get("greedy")
    good = not faults and same and difference <= 1e-5
    said = "" if "scores" in ours else f", greedy {'equal' if same else 'DIFFERENT'}"
    print(f"{'ok  ' if good else 'FAIL'} {folder.name}: {key} {difference:.1e}{said}", faults or "")
    return good


if __name__ == "__main__":
    results = [check(path.parent, sys.argv[2]) for path in sorted(Path(sys.argv[1]).glob("*/reads.json"))]
    print(f"{sum(results)} of {len(results)} models say the same")
    sys.exit(0 if results and all(results) else 1)
