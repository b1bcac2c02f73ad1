"""What torch.optim.AdamW, clip_grad_norm_ and transformers' schedules compute, for src/optim.

Writes test/golden/optim.json. Run with torch 2.13.0 and transformers 5.23.0:

    python tools/golden/optim.py
"""

import json
from pathlib import Path

import torch
import transformers

OUT = Path(__file__).parents[2] / "test" / "golden" / "optim.json"
SHAPES = {"weight": (3, 4), "bias": (4,), "late": (2, 2)}
RATES = [1e-2, 5e-3, 5e-3, 1e-3, 2e-2]


def gradients(generator, step):
    """`late` has no gradient in the first two steps, so that its bias correction lags behind."""
    drawn = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}
    return {name: None if name == "late" and step < 2 else value for name, value in drawn.items()}


def adamw(dtype, fused):
    generator = torch.Generator().manual_seed(7)
    start = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}
    parameters = {name: value.to(dtype, copy=True).requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.AdamW(
        [
            dict(params=[parameters["weight"], parameters["late"]], weight_decay=0.1),
            dict(params=[parameters["bias"]], weight_decay=0.0),
        ],
        betas=(0.9, 0.95),
        eps=1e-8,
        fused=fused,
    )
    steps = []
    for step, rate in enumerate(RATES):
        drawn = gradients(generator, step)
        for name, parameter in parameters.items():
            parameter.grad = None if drawn[name] is None else drawn[name].to(dtype)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.param_groups[1]["lr"] = rate / 2
        optimizer.step()
        steps.append(
            dict(
                gradients={name: None if value is None else value.tolist() for name, value in drawn.items()},
                parameters={name: parameter.tolist() for name, parameter in parameters.items()},
            )
        )
    return dict(start={name: value.tolist() for name, value in start.items()}, rates=RATES, steps=steps)


def clipping(dtype):
    generator = torch.Generator().manual_seed(11)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES.values()]
    cases = []
    for max_norm in (0.5, 1.0, 100.0):
        parameters = [torch.zeros(value.shape, dtype=dtype, requires_grad=True) for value in drawn]
        for parameter, value in zip(parameters, drawn):
            parameter.grad = value.to(dtype, copy=True)
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        cases.append(dict(maxNorm=max_norm, norm=float(norm), clipped=[p.grad.tolist() for p in parameters]))
    return dict(gradients=[value.tolist() for value in drawn], cases=cases)


def schedules():
    from transformers import optimization

    total, warmup, base = 20, 5, 3e-4
    makers = {
        "constant": lambda o: optimization.get_constant_schedule_with_warmup(o, warmup),
        "linear": lambda o: optimization.get_linear_schedule_with_warmup(o, warmup, total),
        "cosine": lambda o: optimization.get_cosine_schedule_with_warmup(o, warmup, total),
        "cosineWithMinimum": lambda o: optimization.get_cosine_with_min_lr_schedule_with_warmup(
            o, warmup, total, min_lr_rate=0.1
        ),
    }
    rates = {}
    for name, make in makers.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
        schedule = make(optimizer)
        rates[name] = []
        for _ in range(total + 1):
            rates[name].append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
    return dict(base=base, warmupSteps=warmup, totalSteps=total, rates=rates)


if __name__ == "__main__":
    golden = dict(
        versions=dict(torch=torch.__version__, transformers=transformers.__version__),
        adamW={"float64": adamw(torch.float64, False), "float32": adamw(torch.float32, False)},
        clip={"float64": clipping(torch.float64), "float32": clipping(torch.float32)},
        schedules=schedules(),
    )
    OUT.write_text(json.dumps(golden) + "\n")
    print(OUT, OUT.stat().st_size)
