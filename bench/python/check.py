"""Whether the bare loop computes the same model: greedy tokens for the weights in a folder.

    python check.py '{"folder": ..., "shape": {...}, "prompts": [[...]], "newTokens": 16}'
"""

import json

import torch

from decoder import Decoder, generate, load_weights
from worker import read_job


def main():
    job = read_job()
    model = Decoder(job["shape"], load_weights(job["folder"]))
    drawn = generate(model, torch.tensor(job["prompts"]), job["newTokens"], 0.0)
    print(json.dumps(drawn.tolist()))


main()
