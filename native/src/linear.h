// The products of a linear layer, see linear.cpp. None has a gradient.
#pragma once

#include <ATen/ATen.h>

#include <optional>

namespace posttrain {

// On oneDNN: x · weightᵀ + bias. x [..., in], weight [out, in], which may be a transposed view, or oneDNN's packed form.
at::Tensor oneDnnProduct(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// x · weightᵀ by whatever is fastest for these shapes, for kernels that bring gradients of their own.
at::Tensor linearValue(const at::Tensor& x, const at::Tensor& weight);

// gradient · weight, in the same way.
at::Tensor linearInputGradient(const at::Tensor& gradient, const at::Tensor& weight);

}  // namespace posttrain
