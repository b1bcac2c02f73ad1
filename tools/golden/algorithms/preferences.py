"""Writes preferences: what TRL lacks or has otherwise, as formulas written out pair by pair, gradients by autograd.

    python tools/golden/algorithms/preferences.py

Every formula is the textbook one, with log, exp and 1/(1 + exp(-x)) on moderate numbers: nothing is made stable, and
nothing is shared with the implementation under test.
"""

import math

import torch
from golden_file import write

SEED = 31
torch.manual_seed(SEED)
torch.set_default_dtype(torch.float64)

B = 5
CHOSEN_LENGTHS = [7, 3, 4, 9, 2]
REJECTED_LENGTHS = [2, 5, 4, 6, 8]


def sigma(x):
    return 1 / (1 + torch.exp(-x))


def logistic(x, eps):
    return -(1 - eps) * torch.log(sigma(x)) - eps * torch.log(sigma(-x))


def f_prime(log_ratio, divergence, alpha, cap):
    """f'(u) at u = p/q, with the exponent capped where a power of u stands."""
    u = torch.exp(log_ratio)
    if divergence == "reverse_kl":
        return torch.log(u)
    if divergence == "js_divergence":
        return torch.log(2 * u / (1 + u))
    power = -1.0 if divergence == "forward_kl" else alpha - 1
    if power == 0:
        return torch.log(u)
    if power * log_ratio.item() > cap:
        return torch.tensor((math.exp(cap) - 1) / power)
    return (u**power - 1) / power


def pair_loss(s, c, r, lengths):
    """One pair; c and r are the log-ratios."""
    variant, beta, eps = s["variant"], s["beta"], s.get("labelSmoothing", 0.0)
    divergence = s.get("fDivergence", "reverse_kl")
    cap = 36 if variant == "ipo" else 80
    fc, fr = (f_prime(x, divergence, s.get("alphaDivergenceCoef"), cap) for x in (c, r))
    x = beta * (fc - fr)
    if variant == "sigmoid":
        return logistic(x, eps)
    if variant == "robust":
        return ((1 - eps) * -torch.log(sigma(x)) - eps * -torch.log(sigma(-x))) / (1 - 2 * eps)
    if variant == "hinge":
        return torch.clamp(1 - x, min=0)
    if variant == "ipo":
        return (fc / lengths[0] - fr / lengths[1] - 1 / (2 * beta)) ** 2
    if variant == "sigmoid_norm":
        return logistic(beta * (fc / lengths[0] - fr / lengths[1]), eps)
    if variant == "exo_pair":
        q = sigma(x)
        return q * torch.log(q / (1 - eps)) + (1 - q) * torch.log((1 - q) / eps)
    if variant == "discopop":
        m = sigma(x / s.get("discopopTau", 0.05))
        return -torch.log(sigma(x)) * (1 - m) + torch.exp(-x) * m
    assert variant == "bco_pair"
    shift = s["rewardShift"]
    return -torch.log(sigma(beta * c - shift)) - torch.log(sigma(-(beta * r - shift)))


def case(name, drift=2.0, weights=None, nll=False, **settings):
    settings = {"variant": "sigmoid", "beta": 0.3, **settings}
    free = settings.get("referenceFree", False)
    ref = torch.randn(2, B) * 4 - 30
    policy = [(ref[i] + torch.randn(B) * drift).requires_grad_() for i in range(2)]
    chosen_nll = (torch.rand(B) * 3).requires_grad_()
    total = []
    for i in range(B):
        c, r = (policy[side][i] - (0 if free else ref[side][i]) for side in range(2))
        loss = pair_loss(settings, c, r, (CHOSEN_LENGTHS[i], REJECTED_LENGTHS[i]))
        if nll:
            loss = loss + settings.get("nllCoef", 1.0) * chosen_nll[i]
        total.append(loss if weights is None else weights[i] * loss)
    sum(total).backward()
    made = {
        "name": name,
        "settings": settings,
        "policyChosenLogprobs": policy[0],
        "policyRejectedLogprobs": policy[1],
        "chosenLengths": CHOSEN_LENGTHS,
        "rejectedLengths": REJECTED_LENGTHS,
        "expected": {
            "loss": [x.item() for x in total],
            "gradChosen": policy[0].grad,
            "gradRejected": policy[1].grad,
            "gradNll": chosen_nll.grad,
        },
    }
    if not free:
        made |= {"refChosenLogprobs": ref[0], "refRejectedLogprobs": ref[1]}
    if weights is not None:
        made["weights"] = weights
    if nll:
        made["chosenNll"] = chosen_nll
    return made


cases = [
    case("sigmoid with label smoothing", labelSmoothing=0.1),
    case("sigmoid with much label smoothing", labelSmoothing=0.45, beta=0.7),
    case("sigmoid_norm with label smoothing", variant="sigmoid_norm", labelSmoothing=0.2),
    case("exo_pair, small epsilon", variant="exo_pair", labelSmoothing=1e-3),
    case("exo_pair, large epsilon", variant="exo_pair", labelSmoothing=0.3),
    case("bco_pair with a shift", variant="bco_pair", rewardShift=0.4),
    case("bco_pair with a negative shift", variant="bco_pair", rewardShift=-1.2),
    case("weights", weights=[0.5, 0.1, 0.25, 2.0, 0.05]),
    case("NLL", nll=True),
    case("NLL with a coefficient and weights", nll=True, nllCoef=0.2, weights=[0.5, 0.1, 0.25, 2.0, 0.05]),
    case("reference-free", referenceFree=True, beta=0.05),
    case("reference-free hinge", referenceFree=True, beta=0.05, variant="hinge"),
]
for alpha in [0.5, -0.7, 2.0, 1.0, 0.0]:
    for variant in ["sigmoid", "robust", "hinge", "ipo", "exo_pair", "discopop", "sigmoid_norm"]:
        settings = {"labelSmoothing": 0.1} if variant in ["robust", "exo_pair"] else {}
        if variant == "discopop":
            settings["discopopTau"] = 0.5
        cases.append(
            case(
                f"{variant}, alpha {alpha}",
                drift=0.8,
                variant=variant,
                beta=0.4,
                fDivergence="alpha_divergence",
                alphaDivergenceCoef=alpha,
                **settings,
            )
        )
for divergence in ["forward_kl", "js_divergence"]:
    cases.append(case(f"sigmoid with label smoothing, {divergence}", drift=0.8, fDivergence=divergence, labelSmoothing=0.1))
# Beyond the cap: with a β so small that the loss can be written naively.
cases.append(case("forward_kl beyond the cap", drift=150.0, fDivergence="forward_kl", beta=1e-34))
cases.append(case("ipo, forward_kl beyond its cap", drift=40.0, variant="ipo", fDivergence="forward_kl"))
cases.append(
    case("alpha beyond the cap", drift=150.0, fDivergence="alpha_divergence", alphaDivergenceCoef=1.9, beta=1e-34)
)
write("preferences.json", "preferences.py", SEED, cases)
