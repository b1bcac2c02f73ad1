"""What the cases have in common: a job in, one line of JSON out."""

import json
import os
import platform
import resource
import sys

import torch


def read_job() -> dict:
    return json.loads(sys.argv[1])


def report(rounds: dict[str, list[float]], versions: dict[str, str] | None = None) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss
    result = {
        "rounds": rounds,
        "peakRssBytes": peak if sys.platform == "darwin" else peak * 1024,
        "cpuSeconds": usage.ru_utime + usage.ru_stime,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **(versions or {})},
        "cpuCapability": torch.backends.cpu.get_cpu_capability(),
    }
    print(json.dumps(result), flush=True)
    # Tearing down a model takes time that belongs to no measurement.
    os._exit(0)
