// Products of a matrix with another one that lies in panels, see panels.cpp. On processors of x86 with AVX2 or AVX-512.
#pragma once

#include <ATen/ATen.h>

#include <optional>

namespace posttrain {

// What multiplies panels; each of them needs the ones before it.
enum class PanelKernel { none, avx2, avx512 };

// The last one that the processor has.
PanelKernel bestPanelKernel();

// The one in use; the best one unless it is set for checking.
PanelKernel panelKernel();
void usePanelKernel(PanelKernel kernel);

// Outputs of a panel. The last one is filled up with zeros.
constexpr int64_t PANEL = 32;
constexpr int64_t inWholePanels(int64_t outputs) { return (outputs + PANEL - 1) / PANEL * PANEL; }

// weight [out, in], float32 or bfloat16 → [out, in, 1], whose storage holds the panels.
at::Tensor toPanels(const at::Tensor& weight);

// x [M, in] · weightᵀ + bias → [M, out], from panels that `toPanels` made, all of one dtype, contiguous.
at::Tensor multiplyByPanels(const at::Tensor& x, const at::Tensor& panels, const std::optional<at::Tensor>& bias);

// a [M, K] · b [K, N] + bias [N] of bfloat16, each sum in float32 and rounded once. Of a and of b the numbers of a row or those
// of a column lie side by side.
at::Tensor productOfHalves(const at::Tensor& a, const at::Tensor& b, const std::optional<at::Tensor>& bias);

}  // namespace posttrain
