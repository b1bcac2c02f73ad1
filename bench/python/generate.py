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
    model = Decoder(shape, dtype=getattr(torch, job["dtype"]))
    prompts = torch.randint(shape["vocabSize"], (job["batch"], job["promptTokens"]))
    warm_up_end = time.perf_counter() + job["warmUpSeconds"]
    generate(model, prompts, WARM_UP_TOKENS, 1.0)
    while time.perf_counter() < warm_up_end:
        generate(model, prompts, WARM_UP_TOKENS, 1.0)
    speeds = []
    end = time.perf_counter() + job["seconds"]
    while len(speeds) < job["rounds"] or time.perf_counter() < end:
        start = time.perf_counter()
        drawn = generate(model, prompts, job["newTokens"], 1.0)
        speeds.append(drawn.numel() / (time.perf_counter() - start))
    report({"tokens/s": speeds})


main()
