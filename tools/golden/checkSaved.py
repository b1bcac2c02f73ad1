"""Opens model folders that posttrain saved with transformers and compares logits; see savedModels.ts.

    npx tsx tools/golden/savedModels.ts /tmp/saved && python tools/golden/checkSaved.py /tmp/saved

Exits with 1 when transformers misses or ignores a tensor, reads other end tokens, or computes other logits: by more than
1e-5 of the largest logit in float32, and by more than 2e-2 of it in bfloat16, whose rounding depends on the order of sums.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def check(folder):
    ours = json.loads((folder / "ours.json").read_text())
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", attn_implementation="eager", output_loading_info=True
    )
    with torch.no_grad():
        logits = model.eval()(torch.tensor(ours["inputIds"])).logits.double()
    difference = float((logits - torch.tensor(ours["logits"], dtype=torch.float64)).abs().max())
    tolerance = (1e-5 if model.dtype == torch.float32 else 2e-2) * float(logits.abs().max())
    faults = {key: value for key, value in info.items() if value}
    end = model.generation_config.eos_token_id
    end = end if isinstance(end, list) else [] if end is None else [end]
    good = not faults and difference <= tolerance and end == ours["eosTokenIds"]
    print(f"{'ok  ' if good else 'FAIL'} {folder.name}: {model.dtype}, max difference {difference:.2e}", faults or "")
    return good


if __name__ == "__main__":
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    results = [check(folder) for folder in folders]
    print(f"{sum(results)} of {len(results)} folders are as they should be")
    sys.exit(0 if results and all(results) else 1)
