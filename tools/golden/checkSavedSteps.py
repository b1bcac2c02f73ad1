"""Opens process reward models that posttrain saved with transformers and compares logits; see savedStepModels.ts.

    npx tsx tools/golden/savedStepModels.ts /tmp/steps && python tools/golden/checkSavedSteps.py /tmp/steps

Exits with 1 when transformers misses or ignores a tensor, makes another class of the folder, loses the separator, or
computes other logits at the steps: by more than 1e-5 in float32, and by more than 2e-2 of the largest in bfloat16.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForTokenClassification


@torch.no_grad()
def check(folder):
    ours = json.loads((folder / "ours.json").read_text())
    model, info = AutoModelForTokenClassification.from_pretrained(folder, attn_implementation="eager", dtype="auto", output_loading_info=True)
    model.eval()
    ids = torch.tensor(ours["inputIds"])
    mask = torch.arange(ids.shape[1]) < torch.tensor(ours["lengths"]).unsqueeze(1)
    logits = model(ids, attention_mask=mask.long()).logits.double()
    pairs = [
        (logits[row, end], torch.tensor(ours["logits"][row][step], dtype=torch.float64))
        for row, ends in enumerate(ours["stepEnds"])
        for step, end in enumerate(ends)
    ]
    difference = max(float((theirs - mine).abs().max()) for theirs, mine in pairs)
    largest = max(float(mine.abs().max()) for _, mine in pairs)
    tolerance = 1e-5 if model.dtype == torch.float32 else 2e-2 * largest
    faults = {key: value for key, value in info.items() if value}
    config = AutoConfig.from_pretrained(folder)
    named = config.architectures == [type(model).__name__] and model.num_labels == 2
    separator = getattr(config, "step_separator", "\n") == ours["separator"]
    good = not faults and named and separator and difference <= tolerance
    print(f"{'ok  ' if good else 'FAIL'} {folder.name}: {model.dtype}, max difference {difference:.2e}", faults or "")
    return good


if __name__ == "__main__":
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    results = [check(folder) for folder in folders]
    print(f"{sum(results)} of {len(results)} folders are as they should be")
    sys.exit(0 if results and all(results) else 1)
