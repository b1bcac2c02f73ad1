// Root-mean-square normalisation, see norm.cpp, for kernels that bring gradients of their own. None has a gradient but `rmsNorm`.
#pragma once

#include <ATen/ATen.h>

#include <cmath>

#include "vectors.h"

namespace posttrain {

// 1/√(mean(x²) + eps) of one row.
template <typename Number>
INLINE float inverseRms(const Number* x, int64_t width, float eps) {
  const int64_t even = width / LANES * LANES;
  Floats squares{};
  for (int64_t at = 0; at < even; at += LANES) squares += load(x + at) * load(x + at);
  float sum = sumOf(squares);
  for (int64_t at = even; at < width; at++) sum += static_cast<float>(x[at]) * static_cast<float>(x[at]);
  return 1 / std::sqrt(sum / static_cast<float>(width) + eps);
}

// Whether rows of x are normalised in one pass: float32 or bfloat16 on the CPU, by a weight of that dtype or of float32.
bool suitsRmsNorm(const at::Tensor& x, const at::Tensor& weight);

// Whether what was normalised in float32 is cast to the dtype of the products that read it, as autocast does.
enum class Cast { None, Narrow };

// Whether products of this dtype may normalise their input themselves, in one pass.
bool suitsNormAndProducts(const at::Tensor& x, const at::Tensor& norm, at::ScalarType dtype, Cast cast);

struct Normalised {
  at::Tensor values;  // x / √(mean(x²) + eps) · weight, the shape of x
  at::Tensor scales;  // [rows] 1 / √(mean(x²) + eps), float32
};
Normalised normalisedRows(const at::Tensor& x, const at::Tensor& weight, double eps);

struct NormGradients {
  at::Tensor ofX, ofWeight;
};
NormGradients normGradients(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& gradient);

// x [..., D] normalised by weight [D], recorded for gradients.
at::Tensor rmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps);

// The same for products of this dtype.
at::Tensor rmsNormFor(const at::Tensor& x, const at::Tensor& norm, double eps, at::ScalarType dtype, Cast cast);

}  // namespace posttrain
