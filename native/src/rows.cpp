// Kernels for a few rows of tokens, where libtorch's operators leave the memory idle: a product of one row with a matrix
// reads each weight once, and what counts is to read at the speed of the memory.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <vector>

#include "napi.h"
#include "parallel.h"
#include "vectors.h"

namespace posttrain {
namespace {

// Four rows of the weight at a time: one read of x serves all of them.
template <typename Weight>
INLINE void dotRows(const float* x, const Weight* weight, int64_t width, int64_t rows, float* result) {
  const int64_t even = width / (2 * LANES) * (2 * LANES);
  for (int64_t row = 0; row < rows; row += 4) {
    // At the end some rows are computed twice.
    const Weight* const w0 = weight + row * width;
    const Weight* const w1 = row + 1 < rows ? w0 + width : w0;
    const Weight* const w2 = row + 2 < rows ? w1 + width : w1;
    const Weight* const w3 = row + 3 < rows ? w2 + width : w2;
    Floats a0{}, b0{}, a1{}, b1{}, a2{}, b2{}, a3{}, b3{};
    for (int64_t at = 0; at < even; at += 2 * LANES) {
      const Floats first = load(x + at), second = load(x + at + LANES);
      a0 += first * load(w0 + at);
      b0 += second * load(w0 + at + LANES);
      a1 += first * load(w1 + at);
      b1 += second * load(w1 + at + LANES);
      a2 += first * load(w2 + at);
      b2 += second * load(w2 + at + LANES);
      a3 += first * load(w3 + at);
      b3 += second * load(w3 + at + LANES);
    }
    const Four found = sums(a0 + b0, a1 + b1, a2 + b2, a3 + b3);
    float totals[4] = {found[0], found[1], found[2], found[3]};
    const Weight* const all[4] = {w0, w1, w2, w3};
    for (int64_t i = 0; i < 4 && row + i < rows; i++) {
      for (int64_t at = even; at < width; at++) totals[i] += x[at] * static_cast<float>(all[i][at]);
      result[row + i] = totals[i];
    }
  }
}

PER_PROCESSOR void dotFloats(const float* x, const float* weight, int64_t width, int64_t rows, float* result) {
  dotRows(x, weight, width, rows, result);
}

PER_PROCESSOR void dotHalves(const float* x, const c10::BFloat16* weight, int64_t width, int64_t rows, float* result) {
  dotRows(x, weight, width, rows, result);
}

// x [M, in], weight [out, in] → [M, out]
template <typename Number>
void multiplyRows(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, at::Tensor& y) {
  const int64_t rows = x.size(0), width = x.size(1), outputs = weight.size(0);
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  const float* const from = wide.const_data_ptr<float>();
  const Number* const weights = weight.const_data_ptr<Number>();
  const Number* const offset = bias.has_value() ? bias->const_data_ptr<Number>() : nullptr;
  Number* const to = y.mutable_data_ptr<Number>();
  parallelFor(outputs, 32, [&](int64_t begin, int64_t end) {
    float found[32];
    for (int64_t first = begin; first < end; first += 32) {
      const int64_t count = std::min<int64_t>(32, end - first);
      for (int64_t row = 0; row < rows; row++) {
        if constexpr (std::is_same_v<Number, float>) dotFloats(from + row * width, weights + first * width, width, count, found);
        else dotHalves(from + row * width, weights + first * width, width, count, found);
        for (int64_t i = 0; i < count; i++) {
          const float added = offset ? static_cast<float>(offset[first + i]) : 0;
          to[row * outputs + first + i] = static_cast<Number>(found[i] + added);
        }
      }
    }
  });
}

bool isPlain(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.layout() == at::kStrided && tensor.is_cpu() && tensor.scalar_type() == dtype && tensor.is_contiguous();
}

// few_rows_linear(x [M, in], weight [out, in], bias) → x · weightᵀ + bias. Not recorded by autograd.
at::Tensor fewRowsLinear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const at::ScalarType dtype = weight.scalar_type();
  const bool isKnown = (dtype == at::kFloat || dtype == at::kBFloat16) && x.dim() == 2 && weight.dim() == 2 &&
                       x.scalar_type() == dtype && x.is_cpu() && isPlain(weight, dtype) && x.size(1) == weight.size(1) &&
                       (!bias.has_value() || (isPlain(*bias, dtype) && bias->numel() == weight.size(0)));
  if (!isKnown) return at::linear(x, weight, bias);
  at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
  if (dtype == at::kFloat) multiplyRows<float>(x, weight, bias, y);
  else multiplyRows<c10::BFloat16>(x, weight, bias, y);
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("few_rows_linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor", &fewRowsLinear);
}

}  // namespace posttrain
