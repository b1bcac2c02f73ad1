"""The model that both sides begin with: a Llama of a million parameters whose weights are arithmetic, not a file.

    u = mix(fnv1a(name) + i) / 2³²,  weight[i] = centre + (2u − 1)·√3·std

with the finalizer of MurmurHash3 as mix, all in 32-bit integers. test/interop/start.ts computes the same bits.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "test/golden/tokenizers/trained"
# Names are those of posttrain's makeDecoderConfig.
SHAPE = {
    "vocabSize": 400,
    "hiddenSize": 128,
    "intermediateSize": 384,
    "numLayers": 5,
    "numHeads": 4,
    "numKeyValueHeads": 2,
    "maxPositionEmbeddings": 128,
    "ropeTheta": 10000,
    "rmsNormEps": 1e-5,
    "tieWordEmbeddings": True,
    "eosTokenId": 1,
    "padTokenId": 0,
}
TINY = {**SHAPE, "hiddenSize": 16, "intermediateSize": 24, "numLayers": 2, "numHeads": 2, "numKeyValueHeads": 1}


def arithmetic(name, count, std, centre=0.0):
    offset = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for byte in name.encode():
            offset = np.uint32(offset ^ np.uint32(byte)) * np.uint32(16777619)
        x = np.arange(count, dtype=np.uint32) + offset
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x85EBCA6B)
        x ^= x >> np.uint32(13)
        x *= np.uint32(0xC2B2AE35)
        x ^= x >> np.uint32(16)
    return (centre + (2 * (x.astype(np.float64) / 2**32) - 1) * np.sqrt(3) * std).astype(np.float32)


@torch.no_grad()
def fill(named_parameters, std=0.08):
    """Matrices around 0; the weights of norms around 1."""
    for name, parameter in named_parameters:
        values = arithmetic(name, parameter.numel(), *((std, 0.0) if parameter.ndim > 1 else (0.1, 1.0)))
        parameter.copy_(torch.from_numpy(values).view(parameter.shape))


def config_of(shape, **further):
    return LlamaConfig(
        vocab_size=shape["vocabSize"],
        hidden_size=shape["hiddenSize"],
        intermediate_size=shape["intermediateSize"],
        num_hidden_layers=shape["numLayers"],
        num_attention_heads=shape["numHeads"],
        num_key_value_heads=shape["numKeyValueHeads"],
        max_position_embeddings=shape["maxPositionEmbeddings"],
        rope_parameters={"rope_type": "default", "rope_theta": float(shape["ropeTheta"])},
        rms_norm_eps=shape["rmsNormEps"],
        tie_word_embeddings=shape["tieWordEmbeddings"],
        bos_token_id=None,
        eos_token_id=shape["eosTokenId"],
        pad_token_id=shape["padTokenId"],
        **further,
    )


def write_start(folder, shape=SHAPE, scores=False, std=0.08):
    """Saves the starting model, with its tokenizer, where trainers load it from."""
    if scores:
        model = LlamaForSequenceClassification(config_of(shape, num_labels=1))
    else:
        model = LlamaForCausalLM(config_of(shape))
    fill(model.named_parameters(), std)
    model.save_pretrained(folder)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    return str(folder)
