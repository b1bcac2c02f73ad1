// Rotary positions in one pass: libtorch takes seven, and copies both halves of every head.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

#include "parallel.h"
#include "vectors.h"

namespace posttrain {
namespace {

// Of one token: H heads of D numbers, of which the first R turn, pair (i, i + R/2) by the angle i.
struct Heads {
  int64_t count, width, rotary;
};

// `sign` 1: y[i] = x[i]·cos[i] − x[i + R/2]·sin[i], y[i + R/2] = x[i + R/2]·cos[i + R/2] + x[i]·sin[i + R/2]; −1: its transpose.
template <typename Number>
INLINE void turnHeads(const Number* x, const float* cos, const float* sin, float sign, Heads heads, Number* y) {
  const int64_t half = heads.rotary / 2, even = half / LANES * LANES;
  const float *const ofFirst = sign > 0 ? sin : sin + half, *const ofSecond = sign > 0 ? sin + half : sin;
  for (int64_t head = 0; head < heads.count; head++, x += heads.width, y += heads.width) {
    for (int64_t at = 0; at < even; at += LANES) {
      const Floats first = load(x + at), second = load(x + half + at);
      store(y + at, first * load(cos + at) - sign * second * load(ofFirst + at));
      store(y + half + at, second * load(cos + half + at) + sign * first * load(ofSecond + at));
    }
    for (int64_t at = even; at < half; at++) {
      const float first = static_cast<float>(x[at]), second = static_cast<float>(x[half + at]);
      y[at] = static_cast<Number>(first * cos[at] - sign * second * ofFirst[at]);
      y[half + at] = static_cast<Number>(second * cos[half + at] + sign * first * ofSecond[at]);
    }
    std::copy(x + heads.rotary, x + heads.width, y + heads.rotary);
  }
}

PER_PROCESSOR void turnFloats(const float* x, const float* cos, const float* sin, float sign, Heads heads, float* y) {
  turnHeads(x, cos, sin, sign, heads, y);
}
PER_PROCESSOR void turnHalves(
    const c10::BFloat16* x, const float* cos, const float* sin, float sign, Heads heads, c10::BFloat16* y) {
  turnHeads(x, cos, sin, sign, heads, y);
}

// x [..., H, D] contiguous; cos and sin [rows, R], which repeat over the tokens of x.
template <typename Number>
at::Tensor turn(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, float sign) {
  at::Tensor y = at::empty_like(x);
  const Heads heads{x.size(-2), x.size(-1), cos.size(-1)};
  const int64_t step = heads.count * heads.width, angles = cos.numel() / heads.rotary;
  const Number* const from = x.const_data_ptr<Number>();
  Number* const to = y.mutable_data_ptr<Number>();
  const float *const cosines = cos.const_data_ptr<float>(), *const sines = sin.const_data_ptr<float>();
  parallelFor(x.numel() / step, std::max<int64_t>(1, 16384 / step), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; token++) {
      const int64_t angle = token % angles * heads.rotary;
      if constexpr (std::is_same_v<Number, float>)
        turnFloats(from + token * step, cosines + angle, sines + angle, sign, heads, to + token * step);
      else turnHalves(from + token * step, cosines + angle, sines + angle, sign, heads, to + token * step);
    }
  });
  return y;
}

struct RotateHalf : torch::autograd::Function<RotateHalf> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin, double sign) {
    context->save_for_backward({cos, sin});
    context->saved_data["sign"] = sign;
    const at::Tensor own = x.contiguous(), cosines = cos.contiguous(), sines = sin.contiguous();
    return x.scalar_type() == at::kFloat ? turn<float>(own, cosines, sines, static_cast<float>(sign))
                                         : turn<c10::BFloat16>(own, cosines, sines, static_cast<float>(sign));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    if (!gradients[0].defined()) return {{}, {}, {}, {}};
    const torch::autograd::variable_list saved = context->get_saved_variables();
    return {apply(gradients[0], saved[0], saved[1], -context->saved_data["sign"].toDouble()), {}, {}, {}};
  }
};

bool isPlain(const at::Tensor& tensor) { return tensor.layout() == at::kStrided && tensor.is_cpu(); }

// Whether cos [..., L, 1, R] has one row for each of the tokens of x [..., L, H, D], or one for each of its L positions.
bool repeats(const at::Tensor& x, const at::Tensor& cos) {
  const int64_t dims = cos.dim();
  if (x.dim() < 3 || dims < 3 || dims > x.dim() || cos.size(-2) != 1 || cos.size(-3) != x.size(-3)) return false;
  const at::IntArrayRef before = cos.sizes().slice(0, dims - 3), all = x.sizes().slice(0, x.dim() - 3);
  return std::all_of(before.begin(), before.end(), [](int64_t size) { return size == 1; }) || before == all;
}

bool suits(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  if (!isPlain(x) || !isPlain(cos) || !isPlain(sin) || cos.sizes() != sin.sizes() || cos.scalar_type() != sin.scalar_type())
    return false;
  if (cos.requires_grad() || sin.requires_grad() || !repeats(x, cos) || x.numel() == 0) return false;
  if (cos.size(-1) % 2 != 0 || cos.size(-1) == 0 || cos.size(-1) > x.size(-1)) return false;
  if (x.scalar_type() == at::kFloat) return cos.scalar_type() == at::kFloat;
  // What autocast computes goes into attention, which takes bfloat16: rounded here, it is rounded once.
  const bool isMixed = cos.scalar_type() == at::kFloat && at::autocast::is_autocast_enabled(at::kCPU);
  return x.scalar_type() == at::kBFloat16 && (isMixed || cos.scalar_type() == at::kBFloat16);
}

// rotate_half(x [..., L, H, D], cos and sin [..., L, 1, R]) → x, the first R numbers of each head turned
at::Tensor rotateHalf(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  if (suits(x, cos, sin)) return RotateHalf::apply(x, cos.to(at::kFloat), sin.to(at::kFloat), 1.0);
  const int64_t rotary = cos.size(-1), half = rotary / 2, rest = x.size(-1) - rotary;
  const at::Tensor turning = rest == 0 ? x : x.narrow(-1, 0, rotary);
  const at::Tensor turned = at::cat({turning.narrow(-1, half, half).neg(), turning.narrow(-1, 0, half)}, -1);
  const at::Tensor rotated = turning * cos + turned * sin;
  return rest == 0 ? rotated : at::cat({rotated, x.narrow(-1, rotary, rest)}, -1);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("rotate_half(Tensor input, Tensor cos, Tensor sin) -> Tensor", &rotateHalf);
}

}  // namespace posttrain
