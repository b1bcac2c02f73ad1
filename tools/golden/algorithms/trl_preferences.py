"""Writes trl_dpo, trl_kto, trl_cpo and trl_orpo: losses and gradients of TRL's own loss code on given log-probabilities.

    python tools/golden/algorithms/trl_preferences.py

Only what surrounds the losses is replaced: the log-probabilities of the tokens are inputs, and the accelerator is one
process. The default dtype is float64, so that TRL's constants (the ε of exo_pair) have it too. Its α-divergence exists
in float32 only and is run there; ORPO's cast to float32 is skipped. The gradient is that of TRL's mean over the batch.
"""

from collections import defaultdict
from types import SimpleNamespace

import torch
import trl
import trl.trainer.dpo_trainer as dpo_module
import trl.trainer.kto_trainer as kto_module
from golden_file import write
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

SEED = 5
torch.manual_seed(SEED)
torch.set_default_dtype(torch.float64)

B, T, V = 6, 5, 3
CHOSEN_LENGTHS = [5, 2, 1, 4, 3, 5]
REJECTED_LENGTHS = [1, 4, 5, 2, 3, 2]
ACCELERATOR = SimpleNamespace(
    device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x, unwrap_model=lambda model: model
)


def shell(cls, **attributes):
    """A trainer without its constructor: only the attributes that the loss reads."""
    made = object.__new__(cls)
    values = {
        "accelerator": ACCELERATOR,
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "model": SimpleNamespace(training=True),
        **attributes,
    }
    for name, value in values.items():
        setattr(made, name, value)
    return made


def mask_of(lengths):
    """[rows, 1 + T]: one prompt token, then the completion."""
    return torch.tensor([[0] + [1 if t < n else 0 for t in range(T)] for n in lengths])


def spread(sequence, lengths):
    """[rows, T] equal log-probabilities of the tokens with these sums."""
    n = torch.tensor(lengths).unsqueeze(1)
    per_token = sequence.unsqueeze(1) / n
    return torch.where(torch.arange(T) < n, per_token, torch.zeros_like(per_token))


def batch_of(mask):
    rows = mask.shape[0]
    ids = torch.zeros(rows, 1 + T, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}


def model_of(rows):
    return lambda **kwargs: SimpleNamespace(logits=torch.zeros(rows, 1 + T, V))


def dpo_loss(settings, pairs, chosen, rejected, ref_chosen, ref_rejected):
    lengths = [CHOSEN_LENGTHS[i] for i in pairs] + [REJECTED_LENGTHS[i] for i in pairs]
    index = torch.tensor(pairs)
    sequence = torch.cat([chosen[index], rejected[index]])
    made = shell(
        dpo_module.DPOTrainer,
        loss_types=[settings["loss_type"]],
        loss_weights=[1.0],
        beta=settings["beta"],
        label_smoothing=settings.get("label_smoothing", 0.0),
        f_divergence_type=settings.get("f_divergence_type", "reverse_kl"),
        f_alpha_divergence_coef=settings.get("f_alpha_divergence_coef", 0.5),
        args=SimpleNamespace(discopop_tau=settings.get("discopop_tau", 0.05)),
        ld_alpha=None,
        use_weighting=False,
    )
    dpo_module.selective_log_softmax = lambda logits, labels: spread(sequence, lengths)
    inputs = batch_of(mask_of(lengths)) | {
        "ref_chosen_logps": ref_chosen[index],
        "ref_rejected_logps": ref_rejected[index],
    }
    loss = made._compute_loss(model_of(len(lengths)), inputs, False)
    return loss, made._metrics["train"]


def dpo_case(loss_type, dtype=torch.float64, drift=3.0, **settings):
    settings = {"loss_type": loss_type, "beta": 0.1, **settings}
    ref_chosen = (torch.randn(B) * 5 - 20).to(dtype)
    ref_rejected = (torch.randn(B) * 5 - 22).to(dtype)
    chosen = (ref_chosen + torch.randn(B) * drift).to(dtype).requires_grad_()
    rejected = (ref_rejected + torch.randn(B) * drift).to(dtype).requires_grad_()
    given = (chosen, rejected, ref_chosen, ref_rejected)
    loss, metrics = dpo_loss(settings, list(range(B)), *given)
    loss.backward()
    rows = None
    if not loss_type.startswith("aot"):
        rows = [dpo_loss(settings, [i], *given)[0].item() for i in range(B)]
    name = ", ".join(str(value) for value in settings.values()) + ("" if dtype == torch.float64 else ", float32")
    return {
        "name": name,
        "settings": settings,
        "precision": "float64" if dtype == torch.float64 else "float32",
        "policyChosenLogprobs": chosen,
        "policyRejectedLogprobs": rejected,
        "refChosenLogprobs": ref_chosen,
        "refRejectedLogprobs": ref_rejected,
        "chosenLengths": CHOSEN_LENGTHS,
        "rejectedLengths": REJECTED_LENGTHS,
        "expected": {
            "meanLoss": loss.item(),
            "loss": rows,
            "gradChosen": chosen.grad,
            "gradRejected": rejected.grad,
            "meanChosenReward": metrics["rewards/chosen"][0],
            "meanRejectedReward": metrics["rewards/rejected"][0],
        },
    }


def dpo():
    cases = []
    for loss_type in ["sigmoid", "hinge", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero"]:
        cases.append(dpo_case(loss_type, beta=0.3))
    for loss_type in ["apo_down", "discopop", "sigmoid_norm", "ipo"]:
        cases.append(dpo_case(loss_type, beta=0.3))
    cases.append(dpo_case("discopop", beta=0.1, discopop_tau=0.7))
    cases.append(dpo_case("hinge", beta=0.1))
    cases.append(dpo_case("ipo", beta=2.0))
    for loss_type, smoothing in [("robust", 0.1), ("robust", 0.35), ("exo_pair", 1e-3), ("exo_pair", 0.2)]:
        cases.append(dpo_case(loss_type, beta=0.2, label_smoothing=smoothing))
    for loss_type in ["aot", "aot_unpaired"]:
        cases.append(dpo_case(loss_type, beta=0.2, label_smoothing=0.1))
    for divergence in ["forward_kl", "js_divergence"]:
        for loss_type in ["sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "discopop"]:
            smoothing = {"label_smoothing": 0.1} if loss_type in ["robust", "exo_pair"] else {}
            cases.append(dpo_case(loss_type, drift=1.5, f_divergence_type=divergence, **smoothing))
    for alpha in [0.5, -0.7, 2.0, 1.0]:
        for loss_type in ["sigmoid", "hinge", "ipo"]:
            settings = {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": alpha}
            cases.append(dpo_case(loss_type, torch.float32, drift=1.0, **settings))
    write("trl_dpo.json", "trl_preferences.py", SEED, cases, trl=trl.__version__)


def kto_case(name, shift, **settings):
    settings = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0, **settings}
    lengths = CHOSEN_LENGTHS
    labels = torch.tensor([1, 0, 0, 1, 1, 0])
    ref = torch.randn(B) * 5 - 20
    policy = (ref + torch.randn(B) * 6).requires_grad_()
    ref_kl = torch.randn(B) * 5 - 40
    policy_kl = (ref_kl + torch.randn(B) + shift).requires_grad_()
    made = shell(kto_module.KTOTrainer, loss_type="kto", calculate_KL=True, **settings)
    made._compute_kl_logps = lambda model, batch: policy_kl
    kto_module.selective_log_softmax = lambda logits, ids: spread(policy, lengths)
    inputs = batch_of(mask_of(lengths)) | {"label": labels, "ref_logps": ref, "ref_KL_logps": ref_kl}
    loss = made._compute_loss(model_of(B), inputs, False)
    loss.backward()
    assert policy_kl.grad is None
    metrics = made._metrics["train"]
    return {
        "name": name,
        "settings": settings,
        "policyLogprobs": policy,
        "refLogprobs": ref,
        "labels": labels,
        "klLogratios": policy_kl - ref_kl,
        "expected": {
            "meanLoss": loss.item(),
            "gradient": policy.grad,
            "kl": metrics["kl"][0],
            "desirableReward": metrics["rewards/chosen"][0],
            "undesirableReward": metrics["rewards/rejected"][0],
        },
    }


def kto():
    cases = [
        kto_case("positive reference point", 2.0),
        kto_case("reference point clamped at 0", -2.0),
        kto_case("weights of both labels", 1.0, beta=0.4, desirable_weight=1.3, undesirable_weight=0.6),
    ]
    write("trl_kto.json", "trl_preferences.py", SEED, cases, trl=trl.__version__)


def cpo_case(name, **settings):
    settings = {"loss_type": "sigmoid", "beta": 0.1, "simpo_gamma": 0.5, "cpo_alpha": 1.0, **settings}
    scale = 1.0 if settings["loss_type"] == "simpo" else 10.0
    chosen = (-torch.rand(B) * 2 * scale).requires_grad_()
    rejected = (-torch.rand(B) * 2 * scale - 0.1).requires_grad_()
    nll = (torch.rand(B) * 2).requires_grad_()
    made = shell(CPOTrainer, alpha=0.0, label_smoothing=0.0, **settings)
    losses, chosen_rewards, rejected_rewards = CPOTrainer.cpo_loss(made, chosen, rejected)
    total = losses + (0 if settings["loss_type"] == "simpo" else settings["cpo_alpha"] * nll)
    total.mean().backward()
    return {
        "name": name,
        "settings": settings,
        "chosenLogprobs": chosen,
        "rejectedLogprobs": rejected,
        "chosenNll": nll,
        "expected": {
            "loss": total,
            "gradChosen": chosen.grad,
            "gradRejected": rejected.grad,
            "gradNll": nll.grad if nll.grad is not None else torch.zeros(B),
            "chosenRewards": chosen_rewards,
            "rejectedRewards": rejected_rewards,
        },
    }


def cpo():
    cases = [
        cpo_case("cpo"),
        cpo_case("cpo with a small nllCoef", beta=0.4, cpo_alpha=0.3),
        cpo_case("simpo", loss_type="simpo", beta=2.0, simpo_gamma=0.5),
        cpo_case("simpo with a large margin", loss_type="simpo", beta=10.0, simpo_gamma=3.0),
    ]
    write("trl_cpo.json", "trl_preferences.py", SEED, cases, trl=trl.__version__)


def orpo():
    torch.Tensor.float = lambda self: self  # TRL's cast to float32
    cases = []
    for name, beta, near in [("orpo", 0.1, 2.0), ("near certainty", 0.5, 1e-3), ("far from it", 1.0, 30.0)]:
        chosen = (-torch.rand(B) * near).requires_grad_()
        rejected = (-torch.rand(B) * near).requires_grad_()
        nll = (torch.rand(B) * 2).requires_grad_()
        made = shell(ORPOTrainer, beta=beta)
        losses, chosen_rewards, rejected_rewards, _, log_odds = ORPOTrainer.odds_ratio_loss(made, chosen, rejected)
        total = nll - losses
        total.mean().backward()
        cases.append(
            {
                "name": name,
                "beta": beta,
                "chosenLogprobs": chosen,
                "rejectedLogprobs": rejected,
                "chosenNll": nll,
                "expected": {
                    "loss": total,
                    "gradChosen": chosen.grad,
                    "gradRejected": rejected.grad,
                    "gradNll": nll.grad,
                    "chosenRewards": chosen_rewards,
                    "rejectedRewards": rejected_rewards,
                    "meanLogOddsRatio": log_odds.item(),
                },
            }
        )
    write("trl_orpo.json", "trl_preferences.py", SEED, cases, trl=trl.__version__)


if __name__ == "__main__":
    dpo()
    kto()
    cpo()
    orpo()
