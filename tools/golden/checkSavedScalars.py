"""Opens scalar models that posttrain saved with transformers and compares scores; see savedScalarModels.ts.

    npx tsx tools/golden/savedScalarModels.ts /tmp/scalars && python tools/golden/checkSavedScalars.py /tmp/scalars

Exits with 1 when transformers misses or ignores a tensor, makes another class of the folder, or computes other scores, in
one padded batch or row by row: by more than 1e-5 in float32. In bfloat16, whose rounding depends on the order of sums, ours
may be as far from the scores in float32 as 2e-2 of the largest, or twice as far as those of transformers.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification


@torch.no_grad()
def check(folder):
    ours = json.loads((folder / "ours.json").read_text())
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager", dtype="auto", output_loading_info=True)
    model.eval()
    ids = torch.tensor(ours["inputIds"])
    mask = torch.arange(ids.shape[1]) < torch.tensor(ours["lengths"]).unsqueeze(1)
    batch = model(ids, attention_mask=mask.long()).logits.squeeze(-1).double()
    rows = [model(row[:length].unsqueeze(0)).logits for row, length in zip(ids, ours["lengths"])]
    rows = torch.cat(rows).squeeze(-1).double()
    # transformers keeps posttrain_score_shift in its configuration and adds nothing.
    kept = getattr(model.config, "posttrain_score_shift", 0) == ours["scoreShift"]
    expected = torch.tensor(ours["scores"], dtype=torch.float64) - ours["scoreShift"]
    difference = max(float((scores - expected).abs().max()) for scores in (batch, rows))
    tolerance = 1e-5
    dtype = model.dtype
    if dtype == torch.bfloat16:
        exact = model.float()(ids, attention_mask=mask.long()).logits.squeeze(-1).double()
        difference = float((expected - exact).abs().max())
        theirs = max(float((scores - exact).abs().max()) for scores in (batch, rows))
        tolerance = max(2e-2 * float(exact.abs().max()), 2 * theirs)
    faults = {key: value for key, value in info.items() if value}
    named = AutoConfig.from_pretrained(folder).architectures == [type(model).__name__]
    good = not faults and named and kept and model.num_labels == 1 and difference <= tolerance
    print(f"{'ok  ' if good else 'FAIL'} {folder.name}: {dtype}, max difference {difference:.2e}", faults or "")
    return good


if __name__ == "__main__":
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    results = [check(folder) for folder in folders]
    print(f"{sum(results)} of {len(results)} folders are as they should be")
    sys.exit(0 if results and all(results) else 1)
