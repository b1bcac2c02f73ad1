// Root-mean-square normalisation, see norm.cpp, for kernels that bring gradients of their own. None has a gradient but `rmsNorm`.
#pragma once

#include <ATen/ATen.h>

namespace posttrain {

// Whether rows of x are normalised in one pass: float32 on the CPU.
bool suitsRmsNorm(const at::Tensor& x, const at::Tensor& weight);

struct Normalised {
  at::Tensor values;  // x / √(mean(x²) + eps) · weight, the shape of x
  at::Tensor scales;  // [rows] 1 / √(mean(x²) + eps)
};
Normalised normalisedRows(const at::Tensor& x, const at::Tensor& weight, double eps);

struct NormGradients {
  at::Tensor ofX, ofWeight;
};
NormGradients normGradients(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& gradient);

// x [..., D] normalised by weight [D], recorded for gradients.
at::Tensor rmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace posttrain
