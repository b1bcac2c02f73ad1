// Products on oneDNN, see linear.cpp.
#pragma once

#include <ATen/ATen.h>

#include <optional>

namespace posttrain {

// x · weightᵀ + bias. x [..., in], weight [out, in], which may be a transposed view, or oneDNN's packed form. No gradient.
at::Tensor oneDnnProduct(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

}  // namespace posttrain
