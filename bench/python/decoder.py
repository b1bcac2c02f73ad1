"""A Llama decoder in bare PyTorch, written by hand for decoding speed.

Preallocated cache, q/k/v and gate/up as one matrix each, rotations computed once, grouped queries without repeated keys,
logits of the last position only, tokens drawn by inverting the cumulative distribution. No library beside torch.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F


class Decoder:
    def __init__(
        self,
        shape: dict,
        weights: dict[str, torch.Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.dtype = dtype
        self.heads = shape["numHeads"]
        self.kv_heads = shape["numKeyValueHeads"]
        self.head_dim = shape["hiddenSize"] // self.heads
        self.eps = shape.get("rmsNormEps", 1e-6)
        self.theta = shape.get("ropeTheta", 10_000.0)
        width, inner = shape["hiddenSize"], shape["intermediateSize"]
        kv_width = self.kv_heads * self.head_dim

        def normal(name: str, *size: int) -> torch.Tensor:
            return (torch.randn(size) * 0.02 if weights is None else weights[name]).to(dtype)

        def norm(name: str) -> torch.Tensor:
            return (torch.ones(width) if weights is None else weights[name]).to(dtype)

        self.embedding = normal("model.embed_tokens.weight", shape["vocabSize"], width)
        self.layers = []
        for index in range(shape["numLayers"]):
            name = f"model.layers.{index}."
            attention, mlp = name + "self_attn.", name + "mlp."
            q = normal(attention + "q_proj.weight", width, width)
            k = normal(attention + "k_proj.weight", kv_width, width)
            v = normal(attention + "v_proj.weight", kv_width, width)
            gate = normal(mlp + "gate_proj.weight", inner, width)
            up = normal(mlp + "up_proj.weight", inner, width)
            self.layers.append(
                (
                    norm(name + "input_layernorm.weight"),
                    torch.cat([q, k, v]),
                    normal(attention + "o_proj.weight", width, width),
                    norm(name + "post_attention_layernorm.weight"),
                    torch.cat([gate, up]),
                    normal(mlp + "down_proj.weight", width, inner),
                )
            )
        self.final_norm = norm("model.norm.weight")

    def start(self, rows: int, capacity: int) -> None:
        """Room for `capacity` positions of `rows` rows."""
        size = (rows, self.kv_heads, capacity, self.head_dim)
        self.cache = [
            (torch.empty(size, dtype=self.dtype), torch.empty(size, dtype=self.dtype)) for _ in self.layers
        ]
        powers = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        angles = torch.outer(torch.arange(capacity).float(), 1.0 / self.theta**powers)
        sin = angles.sin()
        # [capacity, 1, head_dim]: x·cos + roll(x)·sin, the sign of the half turn already in sin.
        self.cos = torch.cat([angles.cos()] * 2, -1).unsqueeze(1).to(self.dtype)
        self.sin = torch.cat([-sin, sin], -1).unsqueeze(1).to(self.dtype)
        self.length = 0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids [B, L] appended to every row; logits [B, V] of the token after them. L is 1 after the prompt."""
        rows, count = ids.shape
        begin, end = self.length, self.length + count
        self.length = end
        cos, sin = self.cos[begin:end], self.sin[begin:end]
        groups = self.heads // self.kv_heads
        x = F.embedding(ids, self.embedding)
        width = (x.size(-1),)
        for (keys, values), (norm1, qkv, output, norm2, gate_up, down) in zip(
            self.cache, self.layers
        ):
            heads = F.linear(F.rms_norm(x, width, norm1, self.eps), qkv)
            heads = heads.view(rows, count, -1, self.head_dim)
            qk, v = heads.split((self.heads + self.kv_heads, self.kv_heads), 2)
            qk = torch.addcmul(qk * cos, qk.roll(self.head_dim // 2, -1), sin)
            q, k = qk.split((self.heads, self.kv_heads), 2)
            keys[:, :, begin:end] = k.transpose(1, 2)
            values[:, :, begin:end] = v.transpose(1, 2)
            if count == 1:
                q = q.reshape(rows, self.kv_heads, groups, self.head_dim)
                mixed = F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end])
                mixed = mixed.reshape(rows, 1, -1)
            else:
                mixed = F.scaled_dot_product_attention(
                    q.transpose(1, 2),
                    keys[:, :, :end],
                    values[:, :, :end],
                    is_causal=True,
                    enable_gqa=groups > 1,
                )
                mixed = mixed.transpose(1, 2).reshape(rows, count, -1)
            x = x + F.linear(mixed, output)
            gate, up = F.linear(F.rms_norm(x, width, norm2, self.eps), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        last = F.rms_norm(x[:, -1], width, self.final_norm, self.eps)
        return F.linear(last, self.embedding)


def draw(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """One token per row, [B, 1]: the first whose cumulative probability exceeds a uniform number."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    if temperature != 1:
        logits = logits / temperature
    cumulative = logits.float().softmax(-1).cumsum(-1)
    points = torch.rand(logits.size(0), 1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, points, right=True).clamp_max_(logits.size(-1) - 1)


@torch.inference_mode()
def generate(model: Decoder, prompts: torch.Tensor, new_tokens: int, temperature: float) -> torch.Tensor:
    """prompts [B, L] -> [B, new_tokens]"""
    rows, length = prompts.shape
    model.start(rows, length + new_tokens)
    drawn = torch.empty(rows, new_tokens, dtype=torch.int64)
    ids = prompts
    for index in range(new_tokens):
        ids = draw(model.forward(ids), temperature)
        drawn[:, index : index + 1] = ids
    return drawn


def load_weights(folder: str) -> dict[str, torch.Tensor]:
    """The float32 tensors of a model.safetensors: eight bytes of length, a JSON header, the numbers."""
    data = bytearray(Path(folder, "model.safetensors").read_bytes())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    weights = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32", f"{name}: expected F32, found {entry['dtype']}"
        count = math.prod(entry["shape"])
        offset = 8 + size + entry["data_offsets"][0]
        flat = torch.frombuffer(data, dtype=torch.float32, count=count, offset=offset)
        weights[name] = flat.view(entry["shape"]).clone()
    return weights
