"""What PyTorch computes, forward and backward, for every operator that posttrain/torch offers.

Writes test/golden/torchOps.json: one case per way of calling an operator. A case has the inputs, the arguments as
TypeScript passes them ({"input": 1} stands for inputs[1]), the result, and for each floating-point input the gradient
of Σ wₖ·resultₖ with wₖ = ((5k mod 7) − 3)/4 over the elements of all floating-point results in order.

    python tools/golden/torchOps.py        (torch 2.13.0)
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F

OUT = Path(__file__).parents[2] / "test" / "golden" / "torchOps.json"
SEED = 11
NAN, INF = float("nan"), float("inf")
CASES = []
generator = torch.Generator().manual_seed(SEED)


def normal(*shape, dtype=torch.float64):
    """Rounded to two digits, so that the file can be read."""
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 100).round().div(100).to(dtype)


def positive(*shape):
    return normal(*shape).abs() + 0.25


def unit(*shape):
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 98).round().div(100) + 0.01


def ints(*values, dtype=torch.int64):
    return torch.tensor(values[0] if len(values) == 1 else values, dtype=dtype)


def bools(*values):
    return torch.tensor(values[0] if len(values) == 1 else values, dtype=torch.bool)


def real(*values):
    return torch.tensor(values[0] if len(values) == 1 else values, dtype=torch.float64)


def number(value):
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def encode(value):
    if isinstance(value, torch.Tensor):
        name = str(value.dtype).removeprefix("torch.")
        value = value.detach().resolve_conj()
        flat = torch.view_as_real(value) if value.is_complex() else value
        data = [number(x) for x in flat.contiguous().flatten().tolist()]
        return {"dtype": name, "shape": list(value.shape), "data": data}
    if isinstance(value, (tuple, list)):
        return [encode(x) for x in value]
    return number(value) if not isinstance(value, bool) else value


def weighted_sum(results):
    total, k = 0, 0
    for result in results:
        if not (result.is_floating_point() or result.is_complex()):
            continue
        flat = (torch.view_as_real(result) if result.is_complex() else result).flatten()
        weights = torch.tensor([((5 * (k + i)) % 7 - 3) / 4 for i in range(flat.numel())], dtype=flat.dtype)
        total, k = total + (weights * flat).sum(), k + flat.numel()
    return total


def case(op, inputs, args, python, *, gradient=True, note=""):
    """`python` takes the inputs. Operators whose name ends in an underscore get a clone of the first one."""
    leaves = [x.clone().requires_grad_(gradient and x.is_floating_point()) for x in inputs]
    given = [leaves[0].clone(), *leaves[1:]] if op.endswith("_") else leaves
    result = python(*given)
    results = [result] if isinstance(result, torch.Tensor) else list(result) if isinstance(result, (tuple, list)) else []
    gradients = None
    differentiable = [x for x in results if x.requires_grad]
    if gradient and differentiable:
        found = torch.autograd.grad(
            weighted_sum(differentiable), [x for x in leaves if x.requires_grad], allow_unused=True
        )
        found = iter(found)
        gradients = [next(found) if x.requires_grad else None for x in leaves]
        gradients = [None if g is None else encode(g) for g in gradients]
    CASES.append(
        {
            "op": op,
            "name": f"{op}{': ' + note if note else ''}",
            "inputs": [encode(x) for x in inputs],
            "args": args,
            "expected": encode(result),
            "gradients": gradients,
        }
    )


def at(index):
    return {"input": index}


# Elementwise, one argument.
X = normal(2, 3)
for op, python, inputs in [
    ("neg", torch.neg, X),
    ("abs", torch.abs, X),
    ("exp", torch.exp, X),
    ("log", torch.log, positive(2, 3)),
    ("log1p", torch.log1p, positive(2, 3)),
    ("expm1", torch.expm1, X),
    ("sqrt", torch.sqrt, positive(2, 3)),
    ("rsqrt", torch.rsqrt, positive(2, 3)),
    ("square", torch.square, X),
    ("sigmoid", torch.sigmoid, X),
    ("tanh", torch.tanh, X),
    ("relu", torch.relu, X),
    ("silu", F.silu, X),
    ("logSigmoid", F.logsigmoid, X),
    ("sin", torch.sin, X),
    ("cos", torch.cos, X),
    ("reciprocal", torch.reciprocal, positive(2, 3)),
    ("erf", torch.erf, X),
    ("softplus", F.softplus, real([[-30.0, -1.0, 0.0], [0.5, 2.0, 30.0]])),
    ("floor", torch.floor, real(-1.5, -0.5, 0.5, 1.5, 2.0)),
    ("ceil", torch.ceil, real(-1.5, -0.5, 0.5, 1.5, 2.0)),
    ("round", torch.round, real(-1.5, -0.5, 0.5, 1.5, 2.5)),
    ("sign", torch.sign, real(-2.0, 0.0, 3.0)),
]:
    case(op, [inputs], [], python)
case("logSigmoid", [real(-1000.0, -89.0, 89.0, 1000.0)], [], F.logsigmoid, note="far from 0")
case("log1p", [real(1e-12, -1e-12)], [], torch.log1p, note="near 0")
case("expm1", [real(1e-12, -1e-12)], [], torch.expm1, note="near 0")
ODD = real(NAN, INF, -INF, 0.0, 1.0)
case("isnan", [ODD], [], torch.isnan)
case("isfinite", [ODD], [], torch.isfinite)
case("isinf", [ODD], [], torch.isinf)
case("logicalNot", [ODD], [], torch.logical_not)
case("nanToNum", [ODD], [{"nan": 2, "posInf": 5, "negInf": -7}], lambda x: torch.nan_to_num(x, 2, 5, -7))
case("nanToNum", [ODD], [], torch.nan_to_num, note="defaults")
case("gelu", [X], [], F.gelu)
case("gelu", [X], [{"approximate": "tanh"}], lambda x: F.gelu(x, approximate="tanh"), note="tanh")

# Elementwise, two arguments: tensors that broadcast, and a number.
A, B = normal(2, 3), normal(3)
for op, python in [
    ("add", torch.add),
    ("sub", torch.sub),
    ("mul", torch.mul),
    ("div", torch.div),
    ("remainder", torch.remainder),
    ("eq", torch.eq),
    ("ne", torch.ne),
    ("lt", torch.lt),
    ("le", torch.le),
    ("gt", torch.gt),
    ("ge", torch.ge),
    ("floorDivide", lambda x, y: torch.div(x, y, rounding_mode="floor")),
]:
    equal = A[:, :3].clone()
    equal[0, 1] = B[1]
    case(op, [equal, B], [at(1)], python, note="tensor")
    case(op, [A, B], [0.7], lambda x, _, f=python: f(x, 0.7), note="number")
    case(op, [ints(-7, -3, 0, 4, 7)], [2], lambda x, f=python: f(x, 2), note="integers and an integer")
    case(op, [ints(-7, -3, 0, 4, 7)], [1.5], lambda x, f=python: f(x, 1.5), note="integers and a fraction")
case("pow", [positive(2, 3), B], [at(1)], torch.pow, note="tensor")
case("pow", [A], [3], lambda x: x.pow(3), note="integer")
case("pow", [positive(4)], [-0.5], lambda x: x.pow(-0.5), note="fraction")
TIES, OTHER = real(1.0, 2.0, 3.0), real(1.0, 5.0, -1.0)
case("maximum", [TIES, OTHER], [at(1)], torch.maximum)
case("minimum", [TIES, OTHER], [at(1)], torch.minimum)
for op, python in [
    ("logicalAnd", torch.logical_and),
    ("logicalOr", torch.logical_or),
    ("logicalXor", torch.logical_xor),
]:
    case(op, [bools(True, True, False, False), bools(True, False, True, False)], [at(1)], python)
C = real(-2.0, -1.0, 0.0, 1.0, 2.0)
case("clamp", [C], [-1, 1], lambda x: x.clamp(-1, 1), note="numbers; the gradient on the bounds is 1")
case("clamp", [C], [None, 0.5], lambda x: x.clamp(max=0.5), note="upper only")
case("clamp", [C], [0.5], lambda x: x.clamp(min=0.5), note="lower only")
LOW, HIGH = real(-3.0, 0.0, 0.0, 0.0, 3.0), real(4.0, 4.0, 4.0, 0.5, 5.0)
case("clamp", [C, LOW, HIGH], [at(1), at(2)], torch.clamp, note="tensors")
case("clamp", [C, LOW], [at(1), 1], lambda x, low: x.clamp(low, real(1.0)), note="a tensor and a number")
case("clamp", [ints(-5, 0, 5)], [-1.5, 2], lambda x: x.clamp(-1.5, 2), note="integers and a fraction")
MASK = bools([[True, False, True], [False, False, True]])
case("where", [A, MASK, B], [at(1), at(2)], lambda x, m, y: torch.where(m, x, y), note="tensor")
case("where", [A, MASK], [at(1), -4], lambda x, m: torch.where(m, x, -4), note="number")
case("maskedFill", [A, MASK], [at(1), 9], lambda x, m: x.masked_fill(m, 9))
case("maskedFill", [A, MASK], [at(1), "-Infinity"], lambda x, m: x.masked_fill(m, -INF), note="−∞")
case("lerp", [A, normal(2, 3)], [at(1), 0.25], lambda x, y: torch.lerp(x, y, 0.25))

# In place.
case("add_", [A, B], [at(1)], lambda x, y: x.add_(y), note="tensor")
case("add_", [A, B], [at(1), {"alpha": -2}], lambda x, y: x.add_(y, alpha=-2), note="alpha")
case("add_", [A], [0.5, {"alpha": 3}], lambda x: x.add_(0.5, alpha=3), note="number and alpha")
case("mul_", [A, B], [at(1)], lambda x, y: x.mul_(y), note="tensor")
case("mul_", [A], [3], lambda x: x.mul_(3), note="number")
case("div_", [A, B], [at(1)], lambda x, y: x.div_(y), note="tensor")
case("div_", [A], [4], lambda x: x.div_(4), note="number")
case("copy_", [A, B], [at(1)], lambda x, y: x.copy_(y), note="broadcast")
case("copy_", [normal(2), ints(3, 4)], [at(1)], lambda x, y: x.copy_(y), note="another dtype")
case("zero_", [A], [], lambda x: x.zero_())
case("fill_", [A], [2.5], lambda x: x.fill_(2.5))
case("maskedFill_", [A, MASK], [at(1), 9], lambda x, m: x.masked_fill_(m, 9))
case("clamp_", [C], [-1, 1.5], lambda x: x.clamp_(-1, 1.5))
case("clamp_", [C], [None, 1.5], lambda x: x.clamp_(max=1.5), note="upper only")
TWO = ints(2, 0)
case("indexCopy_", [normal(3, 2), TWO, normal(2, 2)], [0, at(1), at(2)], lambda x, i, s: x.index_copy_(0, i, s))
case("indexAdd_", [normal(2, 3), TWO, normal(2, 2)], [1, at(1), at(2)], lambda x, i, s: x.index_add_(1, i, s))

# Reductions.
R = normal(2, 3, 4)
for op, python in [("sum", torch.sum), ("mean", torch.mean)]:
    case(op, [R], [], python)
    case(op, [R], [1], lambda x, f=python: f(x, 1), note="one dimension")
    case(op, [R], [[0, -1], {"keepDim": True}], lambda x, f=python: f(x, (0, -1), keepdim=True), note="two, kept")
    case(
        op,
        [normal(3, dtype=torch.float32)],
        [0, {"dtype": "float64"}],
        lambda x, f=python: f(x, 0, dtype=torch.float64),
        note="dtype",
    )
case("sum", [ints([[1, 2], [3, 4]], dtype=torch.int32)], [], torch.sum, note="int32 becomes int64")
case("prod", [R[0]], [], torch.prod)
TIED = real([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]])
for op, python in [("amax", torch.amax), ("amin", torch.amin)]:
    case(op, [TIED], [], python, note="ties share the gradient")
    case(op, [TIED], [1], lambda x, f=python: f(x, 1), note="one dimension")
    case(op, [R], [[0, 2], {"keepDim": True}], lambda x, f=python: f(x, (0, 2), keepdim=True), note="two, kept")
for op, python in [("max", torch.max), ("min", torch.min)]:
    case(op, [R], [-1], lambda x, f=python: f(x, -1))
    case(op, [R], [0, {"keepDim": True}], lambda x, f=python: f(x, 0, keepdim=True), note="kept")
for op, python in [("argmax", torch.argmax), ("argmin", torch.argmin)]:
    case(op, [R], [], python)
    case(op, [R], [1, {"keepDim": True}], lambda x, f=python: f(x, 1, keepdim=True), note="kept")
for op, python in [("std", torch.std), ("var", torch.var)]:
    case(op, [R], [], python)
    case(op, [R], [-1, {"correction": 0}], lambda x, f=python: f(x, -1, correction=0), note="divided by n")
    case(op, [R], [[0, 1], {"keepDim": True}], lambda x, f=python: f(x, (0, 1), keepdim=True), note="two, kept")
    case(op, [R], [None, {"correction": 0}], lambda x, f=python: f(x, None, correction=0), note="all, by n")
LOGIC = bools([[True, True], [False, True], [False, False]])
for op, python in [("all", torch.all), ("any", torch.any)]:
    case(op, [LOGIC], [], python)
    case(op, [LOGIC], [1, {"keepDim": True}], lambda x, f=python: f(x, 1, keepdim=True), note="kept")
case("logsumexp", [R], [-1], lambda x: x.logsumexp(-1))
case("logsumexp", [real(1000.0, 1001.0)], [0, {"keepDim": True}], lambda x: x.logsumexp(0, True), note="far from 0")
case("cumsum", [R], [1], lambda x: x.cumsum(1))
case("cumsum", [ints(1, 2, 3)], [0, {"dtype": "float32"}], lambda x: x.cumsum(0, dtype=torch.float32), note="dtype")
case("cumprod", [R], [1], lambda x: x.cumprod(1))
case("norm", [R], [], torch.linalg.vector_norm)
case("norm", [R], [{"ord": 1, "dim": 1, "keepDim": True}], lambda x: torch.linalg.vector_norm(x, 1, 1, True), note="1")
case("norm", [R], [{"ord": "Infinity"}], lambda x: torch.linalg.vector_norm(x, INF), note="∞")
case("quantile", [normal(7), real(0.0, 0.3, 1.0)], [at(1)], torch.quantile)
case(
    "quantile",
    [normal(3, 4), real(0.5)],
    [at(1), {"dim": 1, "keepDim": True}],
    lambda x, q: torch.quantile(x, q, 1, True),
    note="along a dimension",
)
EQUALS = real([[3.0, 1.0, 3.0, 2.0], [0.0, 0.0, -1.0, 5.0]])
case("sort", [EQUALS], [], lambda x: x.sort(stable=True))
case("sort", [EQUALS], [0, {"descending": True}], lambda x: x.sort(dim=0, descending=True, stable=True), note="falling")
case("argsort", [EQUALS], [], lambda x: x.argsort(stable=True))
case(
    "argsort",
    [EQUALS],
    [1, {"descending": True}],
    lambda x: x.argsort(dim=1, descending=True, stable=True),
    note="falling",
)
case("topk", [R], [2], lambda x: x.topk(2))
case("topk", [R], [1, 1, {"largest": False}], lambda x: x.topk(1, 1, False), note="smallest")
case("equal", [A, A.clone()], [at(1)], torch.equal)
case("equal", [A, A + 1e-9], [at(1)], torch.equal, note="nearly")
case("allclose", [A, A + 1e-9], [at(1)], torch.allclose)
case("allclose", [A, A + 1e-3], [at(1)], torch.allclose, note="not close")
case("allclose", [A, A + 1e-3], [at(1), {"atol": 2e-3}], lambda x, y: torch.allclose(x, y, atol=2e-3), note="atol")
case("allclose", [ODD, ODD], [at(1), {"equalNan": True}], lambda x, y: torch.allclose(x, y, equal_nan=True), note="NaN")

# Shapes and indexing.
S = normal(2, 3, 4)
case("view", [S], [[6, -1]], lambda x: x.view(6, -1))
case("viewDtype", [ints(1, 2, 3)], ["float64"], lambda x: x.view(torch.float64))
case("reshape", [S], [[4, -1]], lambda x: x.reshape(4, -1))
case("permute", [S], [[2, 0, 1]], lambda x: x.permute(2, 0, 1))
case("transpose", [S], [0, -1], lambda x: x.transpose(0, -1))
case("unsqueeze", [S], [1], lambda x: x.unsqueeze(1))
case("squeeze", [normal(2, 1, 3)], [1], lambda x: x.squeeze(1))
case("squeeze", [normal(2, 1, 3)], [0], lambda x: x.squeeze(0), note="nothing to remove")
case("expand", [normal(2, 1)], [[3, -1, 4]], lambda x: x.expand(3, -1, 4))
case("narrow", [S], [2, 1, 2], lambda x: x.narrow(2, 1, 2))
case("slice", [S], [2, 1, None, 2], lambda x: x[:, :, 1::2])
case("slice", [S], [1, -2], lambda x: x[:, -2:], note="from the end")
case("slice", [S], [1, None, 2], lambda x: x[:, :2], note="to a position")
case("select", [S], [1, -1], lambda x: x.select(1, -1))
case("indexSelect", [S, ints(2, 0, 2)], [1, at(1)], lambda x, i: x.index_select(1, i))
G = ints([[0, 3], [2, 2]])
case("gather", [normal(2, 4), G], [1, at(1)], lambda x, i: x.gather(1, i))
P = ints([[0, 3], [2, 1]])
case("scatter", [normal(2, 4), P, normal(2, 2)], [1, at(1), at(2)], lambda x, i, s: x.scatter(1, i, s), note="tensor")
case("scatter", [normal(2, 4), P], [1, at(1), 7], lambda x, i: x.scatter(1, i, 7.0), note="number")
case("scatterAdd", [normal(2, 4), G, normal(2, 2)], [1, at(1), at(2)], lambda x, i, s: x.scatter_add(1, i, s))
case("index", [S, ints(1, 0), ints(2, 2)], [[at(1), at(2)]], lambda x, i, j: x[i, j])
case("index", [S, ints(3, 0)], [[None, None, at(1)]], lambda x, i: x[:, :, i], note="a whole dimension")
case("index", [A, MASK], [[at(1)]], lambda x, m: x[m], note="by a mask")
case("maskedSelect", [A, MASK], [at(1)], lambda x, m: x.masked_select(m))
case("nonzero", [MASK], [], torch.nonzero)
case("split", [S], [3, 2], lambda x: x.split(3, 2))
case("split", [S], [[1, 2], 1], lambda x: x.split([1, 2], 1), note="by sizes")
case("chunk", [S], [2, 1], lambda x: x.chunk(2, 1))
case("unbind", [S], [1], lambda x: x.unbind(1))
case("flip", [S], [[0, 2]], lambda x: x.flip(0, 2))
case("repeat", [A], [[2, 1, 3]], lambda x: x.repeat(2, 1, 3))
case("repeatInterleave", [A], [2, 1], lambda x: x.repeat_interleave(2, 1))
case("repeatInterleave", [A], [2], lambda x: x.repeat_interleave(2), note="flattened")
case("repeatInterleave", [A, ints(3, 0)], [at(1), 0], lambda x, r: x.repeat_interleave(r, 0), note="by counts")
case("flatten", [S], [], torch.flatten)
case("flatten", [S], [1, 2], lambda x: x.flatten(1, 2), note="some")
case("contiguous", [S], [], lambda x: x.contiguous())
case("clone", [S], [], torch.clone)
case("tril", [normal(3, 3)], [], torch.tril)
case("tril", [normal(3, 3)], [-1], lambda x: x.tril(-1), note="diagonal")
case("triu", [normal(3, 3)], [], torch.triu)
case("triu", [normal(3, 3)], [1], lambda x: x.triu(1), note="diagonal")
case("pad", [A], [[1, 2, 0, 1], 5], lambda x: F.pad(x, (1, 2, 0, 1), value=5))
case("pad", [A], [[1, 0]], lambda x: F.pad(x, (1, 0)), note="zeros")
case("movedim", [S], [0, 2], lambda x: x.movedim(0, 2))
case("viewAsComplex", [normal(3, 2)], [], torch.view_as_complex)
case("viewAsReal", [torch.view_as_complex(normal(3, 2))], [], torch.view_as_real)

# Matrix products and layers.
case("mm", [normal(2, 3), normal(3, 4)], [at(1)], torch.mm)
case("bmm", [normal(2, 2, 3), normal(2, 3, 4)], [at(1)], torch.bmm)
case("matmul", [normal(2, 1, 2, 3), normal(4, 3, 2)], [at(1)], torch.matmul)
case("matmul", [normal(3), normal(3)], [at(1)], torch.matmul, note="vectors")
case("linear", [normal(2, 2, 3), normal(4, 3), normal(4)], [at(1), at(2)], F.linear)
case("linear", [normal(2, 3), normal(4, 3)], [at(1)], F.linear, note="no bias")
case("linear", [normal(2, 3), normal(4, 3)], [at(1), None], F.linear, note="a bias of null")
case("addmm", [normal(4), normal(2, 3), normal(3, 4)], [at(1), at(2)], torch.addmm)
case("softmax", [R], [-1], lambda x: x.softmax(-1))
case("softmax", [real(1000.0, 1001.0)], [0], lambda x: x.softmax(0), note="far from 0")
case("logSoftmax", [R], [1], lambda x: x.log_softmax(1))
HALF = normal(2, 3, dtype=torch.bfloat16)
case("softmax", [HALF], [1, {"dtype": "float32"}], lambda x: x.softmax(1, torch.float32), note="dtype")
case("logSoftmax", [HALF], [1, {"dtype": "float32"}], lambda x: x.log_softmax(1, torch.float32), note="dtype")
case("rmsNorm", [normal(2, 3, 4), normal(4)], [at(1), 1e-5], lambda x, w: F.rms_norm(x, (4,), w, 1e-5))
case("layerNorm", [normal(2, 4), normal(4), normal(4)], [at(1), at(2)], lambda x, w, b: F.layer_norm(x, (4,), w, b))
case("layerNorm", [normal(2, 4)], [None, None, 0.1], lambda x: F.layer_norm(x, (4,), eps=0.1), note="plain")
case("dropout", [A], [0], lambda x: F.dropout(x, 0.0), note="p = 0")
case("dropout", [A], [1], lambda x: F.dropout(x, 1.0), note="p = 1")
case("oneHot", [ints([[0, 2], [1, 1]])], [3], lambda x: F.one_hot(x, 3))
EDGES, VALUES = real(1.0, 2.0, 2.0, 3.0), real(0.0, 2.0, 2.5, 3.0, 9.0)
case("searchsorted", [EDGES, VALUES], [at(1)], torch.searchsorted, gradient=False)
case(
    "searchsorted",
    [EDGES, VALUES],
    [at(1), {"right": True}],
    lambda e, v: torch.searchsorted(e, v, right=True),
    gradient=False,
    note="right",
)

# Functions: every tensor is an argument.
Q, K, V = normal(1, 4, 3, 2), normal(1, 2, 5, 2), normal(1, 2, 5, 2)
case(
    "scaledDotProductAttention",
    [Q, K, V],
    [at(0), at(1), at(2), {"groupedQuery": True, "scale": 0.3}],
    lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3, enable_gqa=True),
    note="grouped, scaled",
)
Q, K, V = normal(1, 2, 3, 2), normal(1, 2, 3, 2), normal(1, 2, 3, 2)
case(
    "scaledDotProductAttention",
    [Q, K, V],
    [at(0), at(1), at(2), {"causal": True}],
    lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    note="causal",
)
case(
    "scaledDotProductAttention",
    [Q, K, V, bools([[True, False, True], [True, True, True], [False, True, False]])],
    [at(0), at(1), at(2), {"mask": at(3)}],
    F.scaled_dot_product_attention,
    note="a mask of booleans",
)
case(
    "scaledDotProductAttention",
    [Q, K, V, normal(3, 3)],
    [at(0), at(1), at(2), {"mask": at(3)}],
    F.scaled_dot_product_attention,
    note="a mask of scores",
)
case("embedding", [normal(4, 2), ints([[3, 0], [3, 1]])], [at(0), at(1)], lambda w, i: F.embedding(i, w))
case("cat", [normal(2, 1), normal(2, 3)], [[at(0), at(1)], 1], lambda x, y: torch.cat([x, y], 1))
case("cat", [normal(1), normal(2)], [[at(0), at(1)]], lambda x, y: torch.cat([x, y]), note="the first dimension")
case("stack", [normal(2, 3), normal(2, 3)], [[at(0), at(1)], -1], lambda x, y: torch.stack([x, y], -1))
case("where", [MASK, A, B], [at(0), at(1), at(2)], torch.where, note="function")
case("complex", [normal(3), normal(3)], [at(0), at(1)], torch.complex)

# Factories.
case("zeros", [], [[2, 3]], lambda: torch.zeros(2, 3))
case("zeros", [], [[], {"dtype": "int32"}], lambda: torch.zeros((), dtype=torch.int32), note="a scalar")
case("zeros", [], [[2, 0, 3]], lambda: torch.zeros(2, 0, 3), note="empty")
case("ones", [], [[2], {"dtype": "bool"}], lambda: torch.ones(2, dtype=torch.bool))
case("full", [], [[2, 2], -1.5], lambda: torch.full((2, 2), -1.5))
case("full", [], [[2], 7, {"dtype": "int64"}], lambda: torch.full((2,), 7), note="int64")
case("zerosLike", [ints(1, 2)], [at(0)], torch.zeros_like)
case("onesLike", [normal(2, 1)], [at(0)], torch.ones_like)
case("fullLike", [normal(3)], [at(0), 0.25], lambda x: torch.full_like(x, 0.25))
case("arange", [], [4], lambda: torch.arange(4))
case("arange", [], [2, 9, {"step": 3}], lambda: torch.arange(2, 9, 3), note="step")
case("arange", [], [1, 0, {"step": -0.25, "dtype": "float64"}], lambda: torch.arange(1, 0, -0.25, dtype=torch.float64))
case("linspace", [], [-1, 2, 4], lambda: torch.linspace(-1, 2, 4))
case("eye", [], [3], lambda: torch.eye(3))


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


RANDOM = {"generatorSeed": 5}
case("rand", [], [[2, 3], RANDOM], lambda: torch.rand(2, 3, generator=seeded()), note="the same stream")
case("randn", [], [[5], RANDOM], lambda: torch.randn(5, generator=seeded()), note="the same stream")
case("randint", [], [-3, 9, [6], RANDOM], lambda: torch.randint(-3, 9, (6,), generator=seeded()), note="the same stream")
case("randperm", [], [7, RANDOM], lambda: torch.randperm(7, generator=seeded()), note="the same stream")


# Lists, in place: the result is what becomes of the first list.
LIST = [normal(2), normal(2, 2)]
END = [normal(2), normal(2, 2)]
POSITIVE = [positive(2), positive(2, 2)]


def foreach(op, lists, args, python):
    tensors = [x for entries in lists for x in entries]
    places = [[at(2 * i), at(2 * i + 1)] for i in range(len(lists))]

    def run(*given):
        split = [list(given[2 * i : 2 * i + 2]) for i in range(len(lists))]
        result = python(*split)
        return result if result is not None else split[0]

    leaves = [x.clone() for x in tensors]
    CASES.append(
        {
            "op": op,
            "name": op,
            "inputs": [encode(x) for x in tensors],
            "args": [*places, *args],
            "expected": encode(run(*leaves)),
            "gradients": None,
        }
    )


foreach("foreachNorm", [LIST], [], lambda x: torch._foreach_norm(x))
foreach("foreachMul_", [LIST], [0.5], lambda x: torch._foreach_mul_(x, 0.5) and None)
foreach("foreachAdd_", [LIST], [0.25], lambda x: torch._foreach_add_(x, 0.25) and None)
foreach("foreachLerp_", [LIST, END], [0.3], lambda x, e: torch._foreach_lerp_(x, e, 0.3) and None)
foreach(
    "foreachAddcmul_", [LIST, END, POSITIVE], [0.3], lambda x, a, b: torch._foreach_addcmul_(x, a, b, 0.3) and None
)
foreach(
    "foreachAddcdiv_",
    [LIST, END, POSITIVE],
    [[-0.3, 2]],
    lambda x, a, b: torch._foreach_addcdiv_(x, a, b, [-0.3, 2.0]) and None,
)
foreach("foreachSqrt", [POSITIVE], [], lambda x: torch._foreach_sqrt(x))
foreach("foreachDiv_", [LIST], [[2, -4]], lambda x: torch._foreach_div_(x, [2.0, -4.0]) and None)

OUT.write_text(
    '{"versions": %s, "seed": %d, "cases": [\n%s\n]}\n'
    % (json.dumps({"torch": torch.__version__}), SEED, ",\n".join(json.dumps(c, ensure_ascii=False) for c in CASES))
)
print(f"{len(CASES)} cases")
