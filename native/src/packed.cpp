// Weights that stay as they are, as in sampling: packed once, and multiplied with many times. In panels (panels.cpp), or in
// oneDNN's form where the processor has no instructions for panels, or others that are faster.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "linear.h"
#include "napi.h"
#include "panels.h"
#include "rows.h"

namespace posttrain {
namespace {

bool packsPanels(at::ScalarType dtype) {
  return panelKernel() != PanelKernel::none && (dtype == at::kFloat || (dtype == at::kBFloat16 && widensProducts()));
}

}  // namespace

bool isPacked(const at::Tensor& weight) { return weight.is_mkldnn() || weight.dim() == 3; }

// pack_linear(weight [out, in], rows): for products with about so many rows.
at::Tensor packLinear(const at::Tensor& weight, int64_t rows) {
  TORCH_CHECK(weight.dim() == 2 && weight.is_cpu() && weight.numel() > 0, "expected a weight [out, in] on the CPU, received ",
              weight.sizes(), " on ", weight.device());
  const at::NoGradGuard withoutGradient;
  const at::ScalarType dtype = weight.scalar_type();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "expected a weight of float32 or bfloat16, received ", dtypeName(dtype));
  if (!packsPanels(dtype)) {
    static const auto call = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("mkldnn::_reorder_linear_weight", "")
                                 .typed<at::Tensor(const at::Tensor&, std::optional<c10::SymInt>)>();
    return call.call(weight, c10::SymInt(rows));
  }
  return toPanels(weight);
}

at::Tensor packedLinear(const at::Tensor& x, const at::Tensor& packed, const std::optional<at::Tensor>& bias) {
  TORCH_CHECK(isPacked(packed), "expected a weight of pack_linear, received ", packed.sizes());
  refuseGradient("packed_linear", {x, packed});
  if (bias.has_value()) refuseGradient("packed_linear", {*bias});
  if (packed.is_mkldnn()) return oneDnnProduct(x, packed, bias);
  const at::ScalarType dtype = packed.scalar_type();
  const int64_t outputs = packed.size(0), inputs = packed.size(1);
  TORCH_CHECK(x.dim() == 2 && x.is_cpu() && x.scalar_type() == dtype && x.size(1) == inputs, "expected x [rows, ", inputs, "] of ",
              dtypeName(dtype), " on the CPU, received ", x.sizes(), " of ", dtypeName(x.scalar_type()));
  TORCH_CHECK(!bias.has_value() || (bias->dim() == 1 && bias->size(0) == outputs && bias->scalar_type() == dtype && bias->is_cpu()),
              "expected a bias of ", outputs, " numbers of ", dtypeName(dtype));
  TORCH_CHECK(panelKernel() != PanelKernel::none, "expected a weight in oneDNN's form, which is in use, received panels");
  // Any other tensor of this form and with this room is taken for one.
  TORCH_CHECK(packed.is_cpu() && packed.is_contiguous() && packed.size(2) == 1 && inputs > 0 && packed.storage_offset() == 0 &&
                  packed.storage().nbytes() >= static_cast<size_t>(inWholePanels(outputs) * inputs * packed.itemsize()),
              "expected a weight of pack_linear, received a tensor ", packed.sizes());
  return multiplyByPanels(x.contiguous(), packed, bias.has_value() ? std::optional(bias->contiguous()) : bias);
}

namespace {

constexpr const char* NAMES[] = {"oneDnn", "avx2", "avx512"};

// usePackedKernel(name) → what was used before
napi_value setKernel(napi_env env, napi_callback_info info) {
  return guard(env, "usePackedKernel", [&] {
    const Arguments arguments(env, info);
    const std::string name = asString(env, arguments[0]);
    const auto known = std::find(std::begin(NAMES), std::end(NAMES), name);
    const auto asked = static_cast<PanelKernel>(known - std::begin(NAMES));
    TORCH_CHECK(known != std::end(NAMES) && asked <= bestPanelKernel(),
                "expected one of oneDnn, avx2 and avx512 that the processor has, received ", name);
    const char* const before = NAMES[static_cast<int>(panelKernel())];
    usePanelKernel(asked);
    return fromString(env, before);
  });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("pack_linear(Tensor weight, int rows) -> Tensor", &packLinear);
  library.def("packed_linear(Tensor input, Tensor packed, Tensor? bias=None) -> Tensor", &packedLinear);
}

void definePacked(napi_env env, napi_value exports) { define(env, exports, "usePackedKernel", setKernel); }

}  // namespace posttrain
