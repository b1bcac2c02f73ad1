"""Writes trl_grpo: losses and gradients of GRPOTrainer._compute_loss of TRL, run as it is on given log-probabilities.

    python tools/golden/algorithms/trl_grpo.py

Only what surrounds the method is replaced: the model's log-probabilities and entropies are inputs, and the accelerator
is one process. Advantages come from TRL's formula for one reward function.
"""

from collections import defaultdict
from types import SimpleNamespace

import torch
import trl
from golden_file import write
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import nanstd

SEED = 11
torch.manual_seed(SEED)
torch.set_default_dtype(torch.float64)

B, T, G = 8, 6, 4
LENGTHS = [6, 3, 1, 5, 2, 6, 4, 3]
MASK = torch.tensor([[1 if t < n else 0 for t in range(T)] for n in LENGTHS])
BUDGET = 9


def trainer(logprobs, entropies, **settings):
    """A GRPOTrainer without its constructor: only the attributes that the loss reads."""
    made = object.__new__(GRPOTrainer)
    values = {
        "loss_type": "grpo",
        "beta": 0.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.28,
        "importance_sampling_level": "token",
        "off_policy_mask_threshold": None,
        "top_entropy_quantile": 1.0,
        "entropy_coef": 0.0,
        "_entropy_bonus_enabled": False,
        "use_adaptive_entropy": False,
        "use_bias_correction_kl": False,
        "delta": None,
        **settings,
    }
    made.args = SimpleNamespace(
        delta=values.pop("delta"), use_bias_correction_kl=values.pop("use_bias_correction_kl"), steps_per_generation=1
    )
    made.aux_loss_enabled = False
    made.use_vllm = False
    made.vllm_importance_sampling_correction = False
    made.max_completion_length = BUDGET
    made.current_gradient_accumulation_steps = 1
    made._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    made.model = SimpleNamespace(training=True)
    made.accelerator = SimpleNamespace(
        num_processes=1,
        sync_gradients=True,
        gather=lambda x: x,
        reduce=lambda x, reduction: x,
        pad_across_processes=lambda x, dim, pad_index: x,
    )
    for name, value in values.items():
        setattr(made, name, value)
    made._get_per_token_logps_and_entropies = lambda *args, **kwargs: (logprobs, entropies, None)
    return made


def advantages_of(rewards, scale):
    grouped = rewards.view(-1, G)
    centred = rewards - torch.nanmean(grouped, dim=1).repeat_interleave(G)
    if scale == "none":
        return centred
    std = nanstd(grouped, dim=1).repeat_interleave(G) if scale == "group" else nanstd(rewards).expand_as(rewards)
    return centred / (std + 1e-4)


def case(name, scale="group", drift=0.3, **settings):
    old = torch.randn(B, T) * 0.7 - 2
    new = (old + torch.randn(B, T) * drift).requires_grad_()
    ref = old + torch.randn(B, T) * 0.3
    entropies = (torch.rand(B, T) * 2).requires_grad_()
    rewards = torch.randn(B)
    advantages = advantages_of(rewards, scale)
    made = trainer(new, entropies, **settings)
    inputs = {
        "prompt_ids": torch.zeros(B, 1, dtype=torch.long),
        "prompt_mask": torch.ones(B, 1, dtype=torch.long),
        "completion_ids": torch.zeros(B, T, dtype=torch.long),
        "completion_mask": MASK,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": ref,
        "num_items_in_batch": MASK.sum(),
    }
    loss = GRPOTrainer._compute_loss(made, None, inputs)
    loss.backward()
    metrics = {key: value[0] for key, value in made._metrics["train"].items()}
    return {
        "name": name,
        "settings": {"loss_type": "grpo", "importance_sampling_level": "token", "scale": scale, **settings},
        "mask": MASK,
        "logprobs": new,
        "oldLogprobs": old,
        "refLogprobs": ref,
        "entropies": entropies,
        "rewards": rewards,
        "groupSize": G,
        "budget": BUDGET,
        "clip": {"low": 0.2, "high": 0.28},
        "expected": {
            "advantages": advantages,
            "loss": loss.item(),
            "gradient": new.grad,
            "entropyGradient": entropies.grad,
            "clipLow": metrics.get("clip_ratio/low_mean"),
            "clipHigh": metrics.get("clip_ratio/high_mean"),
            "kl": metrics.get("kl"),
        },
    }


cases = []
for loss_type in ["grpo", "bnpo", "dr_grpo", "dapo"]:
    for level in ["token", "sequence"]:
        for scale in ["group", "batch", "none"]:
            drift = 0.3 if level == "token" else 0.6
            cases.append(
                case(f"{loss_type}, {level}, {scale}", scale, drift, loss_type=loss_type, importance_sampling_level=level)
            )
cases.append(case("grpo with k3", beta=0.04))
cases.append(case("dapo with k3 times ratio", loss_type="dapo", beta=0.5, use_bias_correction_kl=True))
cases.append(case("cispo", loss_type="cispo", epsilon_high=1.2, drift=0.6))
cases.append(case("off-policy mask", off_policy_mask_threshold=0.05, drift=0.5))
cases.append(case("entropy bonus", loss_type="dapo", entropy_coef=0.1, _entropy_bonus_enabled=True))
cases.append(case("top entropy", loss_type="dapo", top_entropy_quantile=0.2))
write("trl_grpo.json", "trl_grpo.py", SEED, cases, trl=trl.__version__)
