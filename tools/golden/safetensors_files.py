"""A file of every dtype written by Python's safetensors, for src/torch/safetensors.test.ts.

Writes test/golden/safetensors/dtypes.safetensors. Run with torch 2.13.0 and safetensors 0.8.0:

    python tools/golden/safetensors_files.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).parents[2] / "test" / "golden" / "safetensors"


def tensors():
    counting = torch.arange(6).reshape(2, 3)
    return {
        "b.float64": counting.double() / 3,
        "a.float32": counting.float() / 3,
        "é.float32": counting.float() / 7,
        "bfloat16": (counting / 3).bfloat16(),
        "float16": (counting / 3).half(),
        "int64": counting * 2**40,
        "int32": counting.int() * -5,
        "uint8": counting.to(torch.uint8),
        "bool": counting % 2 == 0,
        "complex64": torch.complex(counting.float(), -counting.float()),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 4),
    }


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "dtypes.safetensors"
    save_file(tensors(), path, metadata={"format": "pt"})
    path.chmod(0o644)
    print(path, path.stat().st_size)
