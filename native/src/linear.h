// The products of a linear layer, see linear.cpp. None has a gradient but `linearLayer`.
#pragma once

#include <ATen/ATen.h>

#include <optional>

namespace posttrain {

// On oneDNN: x · weightᵀ + bias. x [..., in], weight [out, in], which may be a transposed view, or oneDNN's packed form.
at::Tensor oneDnnProduct(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// x · weightᵀ + bias by whatever is fastest for these shapes, for kernels that bring gradients of their own.
at::Tensor linearValue(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias = std::nullopt);

// gradient · weight, in the same way.
at::Tensor linearInputGradient(const at::Tensor& gradient, const at::Tensor& weight);

// gradientᵀ · x: of the weight, [out, in], from gradient [N, out] and x [N, in]. Recorded for gradients where they are enabled.
at::Tensor linearWeightGradient(const at::Tensor& gradient, const at::Tensor& x);

// What autocast would make of a tensor of its own accord, with the copies of the weights that it keeps.
at::Tensor autocasted(const at::Tensor& tensor);

// Whether large products of bfloat16 are computed from factors widened to float32.
bool widensProducts();

// x · weightᵀ + bias, recorded for gradients.
at::Tensor linearLayer(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

}  // namespace posttrain
