"""Nanoseconds of a small operator called from Python, its result object included."""

import time

import torch

from worker import read_job, report


def add(a, b, calls):
    with torch.no_grad():
        for _ in range(calls):
            c = a + b
    return c


def add_recorded(a, b, calls):
    for _ in range(calls):
        c = a + b
    return c


def multiply_by_number(a, _, calls):
    with torch.no_grad():
        for _ in range(calls):
            c = a * 0.5
    return c


def main():
    job = read_job()
    a, b = torch.rand(2, 2), torch.rand(2, 2)
    leaf = torch.rand(2, 2, requires_grad=True)
    loops = {
        "add": (add, a),
        "add, recorded by autograd": (add_recorded, leaf),
        "multiply by a number": (multiply_by_number, a),
    }
    rounds = {name: [] for name in loops}
    for loop, left in loops.values():
        loop(left, b, job["calls"] // 10)
    for _ in range(job["rounds"]):
        for name, (loop, left) in loops.items():
            start = time.perf_counter()
            loop(left, b, job["calls"])
            rounds[name].append((time.perf_counter() - start) / job["calls"] * 1e9)
    report(rounds)


main()
