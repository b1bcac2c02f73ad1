"""Tokens per second of a bare PyTorch loop: new tokens over wall time, the pass over the prompts included."""

import time

import torch

from decoder import Decoder, generate
from worker import read_job, report

WARM_UP_TOKENS = 8


def main():
    job = read_job()
    torch.manual_seed(0)
    shape = job["shape"]
    model = Decoder(shape)
    prompts = torch.randint(shape["vocabSize"], (job["batch"], job["promptTokens"]))
    generate(model, prompts, WARM_UP_TOKENS, 1.0)
    speeds = []
    for _ in range(job["rounds"]):
        start = time.perf_counter()
        drawn = generate(model, prompts, job["newTokens"], 1.0)
        speeds.append(drawn.numel() / (time.perf_counter() - start))
    report({"tokens/s": speeds})


main()
