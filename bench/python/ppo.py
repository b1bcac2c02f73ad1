"""Whole steps of PPO in bare PyTorch: policy, frozen reference, frozen reward model and value model, no library.

What a step computes is what ours computes with its defaults: a rollout, log-probabilities under policy and reference,
values and scores without gradients, GAE over token rewards with the KL in them, whitened advantages, then four updates of
policy and value model on the whole rollout. Fused matrices as in decoder.py, logits at the completion only, the fused
AdamW of torch.
"""

import json
import time

import torch
import torch.nn.functional as F

from decoder import Decoder, generate, load_weights
from worker import read_job, report

UPDATES, CLIP, VALUE_CLIP, VALUE_COEF, LAMBDA = 4, 0.2, 0.2, 0.1, 0.95


class Trunk(Decoder):
    """The decoder over whole sequences, with gradients."""

    def parameters(self):
        return [self.embedding, *(weight for layer in self.layers for weight in layer), self.final_norm]

    def trained(self):
        for weight in self.parameters():
            weight.requires_grad_(True)
        return self

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """ids [B, T] -> [B, T, width]"""
        rows, count = ids.shape
        powers = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        angles = torch.outer(torch.arange(count).float(), 1.0 / self.theta**powers)
        cos = torch.cat([angles.cos()] * 2, -1).unsqueeze(1).to(self.dtype)
        sin = torch.cat([-angles.sin(), angles.sin()], -1).unsqueeze(1).to(self.dtype)
        x = F.embedding(ids, self.embedding)
        width = (x.size(-1),)
        for norm1, qkv, output, norm2, gate_up, down in self.layers:
            heads = F.linear(F.rms_norm(x, width, norm1, self.eps), qkv)
            heads = heads.view(rows, count, -1, self.head_dim)
            qk, v = heads.split((self.heads + self.kv_heads, self.kv_heads), 2)
            qk = torch.addcmul(qk * cos, qk.roll(self.head_dim // 2, -1), sin)
            q, k = qk.split((self.heads, self.kv_heads), 2)
            mixed = F.scaled_dot_product_attention(
                q.transpose(1, 2),
                k.transpose(1, 2),
                v.transpose(1, 2),
                is_causal=True,
                enable_gqa=self.heads > self.kv_heads,
            )
            x = x + F.linear(mixed.transpose(1, 2).reshape(rows, count, -1), output)
            gate, up = F.linear(F.rms_norm(x, width, norm2, self.eps), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        return F.rms_norm(x, width, self.final_norm, self.eps)


def logprobs(model: Trunk, ids: torch.Tensor, prompt: int) -> torch.Tensor:
    """Of the tokens after the prompt, [B, T − prompt], nats."""
    logits = F.linear(model.hidden(ids)[:, prompt - 1 : -1], model.embedding).float()
    return -F.cross_entropy(logits.flatten(0, 1), ids[:, prompt:].flatten(), reduction="none").view(len(ids), -1)


def scores(model: Trunk, head: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """[B, T]"""
    return F.linear(model.hidden(ids), head).squeeze(-1).float()


def advantages_of(rewards: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """GAE with γ = 1; after the last token nothing follows."""
    result, running = torch.empty_like(rewards), 0.0
    for t in reversed(range(rewards.size(1))):
        following = values[:, t + 1] if t + 1 < rewards.size(1) else 0.0
        running = rewards[:, t] + following - values[:, t] + LAMBDA * running
        result[:, t] = running
    return result


def copied(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of their own: a matrix that is fused with nothing would be shared by all models."""
    return {name: weight.clone() for name, weight in weights.items()}


def main():
    job = read_job()
    torch.manual_seed(0)
    assert job["dtype"] in ("float32", "bfloat16")
    dtype = getattr(torch, job["dtype"])
    shape, prompt_tokens, new_tokens = job["shape"], job["promptTokens"], job["newTokens"]
    weights = load_weights(job["model"])
    policy, value, reference, reward = (Trunk(shape, copied(weights), dtype) for _ in range(4))
    policy.trained(), value.trained()
    del weights
    width = shape["hiddenSize"]
    reward_head = (torch.randn(1, width) / (width + 1) ** 0.5).to(dtype)
    value_head = torch.zeros(1, width, dtype=dtype, requires_grad=True)
    parameters = [*policy.parameters(), *value.parameters(), value_head]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.0, fused=True)
    with open(job["data"], encoding="utf-8") as file:
        texts = [json.loads(line)["prompt"] for line in file]
    # Ids by the alphabet: two special tokens, 26 letters, then the characters from U+20000 on.
    encoded = torch.tensor([[ord(c) - 97 + 2 if c < "{" else ord(c) - 0x20000 + 28 for c in text] for text in texts])
    rows = job["rows"] * job["groupSize"]

    def step(index: int) -> int:
        first = index * job["rows"] % len(encoded)
        prompts = encoded[first : first + job["rows"]].repeat_interleave(job["groupSize"], 0)
        ids = torch.cat([prompts, generate(policy, prompts, new_tokens, 1.0)], 1).clone()
        with torch.no_grad():
            old = logprobs(policy, ids, prompt_tokens)
            rewards = -job["klCoef"] * (old - logprobs(reference, ids, prompt_tokens))
            rewards[:, -1] += scores(reward, reward_head, ids)[:, -1]
            old_values = scores(value, value_head, ids)[:, prompt_tokens - 1 : -1]
            advantages = advantages_of(rewards, old_values)
            returns = advantages + old_values
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for _ in range(UPDATES):
            ratio = (logprobs(policy, ids, prompt_tokens) - old).exp()
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            policy_loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
            policy_loss.backward()
            now = scores(value, value_head, ids)[:, prompt_tokens - 1 : -1]
            near = old_values + (now - old_values).clamp(-VALUE_CLIP, VALUE_CLIP)
            value_loss = 0.5 * torch.maximum((now - returns) ** 2, (near - returns) ** 2).mean()
            (VALUE_COEF * value_loss).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return ids.numel()

    seconds, tokens = [], []
    for index in range(job["warmUpSteps"] + job["rounds"]):
        start = time.perf_counter()
        counted = step(index)
        if index >= job["warmUpSteps"]:
            seconds.append(time.perf_counter() - start)
            tokens.append(counted)
    assert all(count == rows * (prompt_tokens + new_tokens) for count in tokens)
    report({"tokens/s": [count / time for count, time in zip(tokens, seconds)], "tokens per step": tokens})


main()
