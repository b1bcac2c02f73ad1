// A linear layer whose large products on the CPU take the fastest way that the processor has, with the gradients of any other.
//
// In float32, MKL takes its AVX2 kernels on processors of AMD; oneDNN takes AVX-512 ones: less time for a product of a
// thousand rows, most of all for a large output.
//
// In bfloat16, processors without instructions for it, and those of Intel that have AVX512-BF16 and no AMX, multiply slower
// than in float32. There both factors are widened as they are read (panels.cpp), and the result is rounded once: sums of the
// same exact products, in float32 either way.
//
// What either gains is measured by `npm run bench -- parts`. Which way is taken depends on the processor and the shapes
// alone, so that a run that is repeated or resumed computes the same.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cstring>
#include <vector>

#include "linear.h"
#include "napi.h"
#include "panels.h"

namespace posttrain {
namespace {

// Multiplications below which calling oneDNN costs more than it gains.
constexpr int64_t LEAST_PRODUCT = int64_t{1} << 23;

bool processorIsAmd() {
#if defined(__x86_64__)
  unsigned level, b, c, d;
  if (__get_cpuid(0, &level, &b, &c, &d) == 0) return false;
  char vendor[13] = {};
  std::memcpy(vendor, &b, 4);
  std::memcpy(vendor + 4, &d, 4);
  std::memcpy(vendor + 8, &c, 4);
  return std::strcmp(vendor, "AuthenticAMD") == 0;
#else
  return false;
#endif
}

bool useOneDnn = processorIsAmd();

bool processorHasMatrixUnit() {
#if defined(__x86_64__)
  constexpr unsigned AMX_BF16 = 1u << 22;
  unsigned a, b, c, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & AMX_BF16) != 0;
#else
  return false;
#endif
}

// Only processors of x86 are known to be slow.
bool multipliesHalvesSlowly() {
#if defined(__x86_64__)
  return !processorHasMatrixUnit() && !(processorIsAmd() && processorMultipliesPairs());
#else
  return false;
#endif
}

bool widens = multipliesHalvesSlowly() && bestPanelKernel() != PanelKernel::none;

using Pointwise = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                             c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);

}  // namespace

at::Tensor oneDnnProduct(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  static const auto call =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Pointwise>();
  return call.call(x, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

namespace {

bool isPlainFloat(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && tensor.is_cpu() && tensor.scalar_type() == at::kFloat;
}

bool suits(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  if (!useOneDnn || !isPlainFloat(x) || !isPlainFloat(weight) || at::autocast::is_autocast_enabled(at::kCPU)) return false;
  if (bias.has_value() && !(isPlainFloat(*bias) && bias->dim() == 1 && bias->size(0) == weight.size(0))) return false;
  if (x.dim() < 2 || weight.dim() != 2 || x.size(-1) != weight.size(1)) return false;  // libtorch says what is wrong
  return x.numel() * weight.size(0) >= LEAST_PRODUCT;
}

// Rows, inputs or outputs below which widening costs more than it gains: few, where bfloat16 has no instructions at all.
int64_t leastWidened() { return processorMultipliesPairs() ? 32 : 2; }

bool isPlainHalf(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && tensor.is_cpu() && tensor.scalar_type() == at::kBFloat16;
}

// x [..., K] · weight [N, K]ᵀ
bool suitsWidening(at::IntArrayRef x, at::IntArrayRef weight) {
  if (x.empty() || weight.size() != 2 || x.back() != weight[1] || x.back() == 0) return false;
  return std::min({c10::multiply_integers(x) / x.back(), weight[0], weight[1]}) >= leastWidened();
}

bool suitsWidening(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  if (bias.has_value() && !(isPlainHalf(*bias) && bias->dim() == 1 && bias->size(0) == weight.size(0))) return false;
  return widensProducts() && isPlainHalf(x) && isPlainHalf(weight) && suitsWidening(x.sizes(), weight.sizes());
}

at::Tensor fastestProduct(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, bool widening) {
  if (!widening) return oneDnnProduct(x, weight, bias);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  // Not a view for autograd, so that the result may be changed in its place.
  return at::_unsafe_view(productOfHalves(x.reshape({-1, x.size(-1)}), weight.t(), bias), shape);
}

struct FasterLinear : torch::autograd::Function<FasterLinear> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, bool widening) {
    // What is saved stays in memory; of a frozen layer's input nothing is asked.
    context->save_for_backward({weight.requires_grad() ? x : at::Tensor(), x.requires_grad() ? weight : at::Tensor()});
    context->saved_data["has bias"] = bias.has_value();
    context->saved_data["widening"] = widening;
    return fastestProduct(x, weight, bias, widening);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &gradient = gradients[0];
    if (!gradient.defined()) return {{}, {}, {}, {}};
    const bool widening = context->saved_data["widening"].toBool();
    const at::Tensor rows = gradient.reshape({-1, gradient.size(-1)});
    at::Tensor ofX, ofWeight, ofBias;
    if (context->needs_input_grad(0)) {
      // The faster products have no gradient of their own.
      ofX = at::GradMode::is_enabled() ? gradient.matmul(weight) : fastestProduct(gradient, weight.t(), std::nullopt, widening);
    }
    if (context->needs_input_grad(1)) ofWeight = linearWeightGradient(rows, x.reshape({-1, x.size(-1)}));
    if (context->saved_data["has bias"].toBool() && context->needs_input_grad(2)) ofBias = rows.sum(0);
    return {ofX, ofWeight, ofBias, {}};
  }
};

// name(enabled) → whether it was before
napi_value setSwitch(napi_env env, napi_callback_info info, const char* name, bool& isOn) {
  return guard(env, name, [&] {
    const Arguments arguments(env, info);
    const bool before = isOn;
    isOn = asBool(env, arguments[0]);
    return fromBool(env, before);
  });
}

napi_value setOneDnn(napi_env env, napi_callback_info info) { return setSwitch(env, info, "useOneDnnLinear", useOneDnn); }
napi_value setWidening(napi_env env, napi_callback_info info) { return setSwitch(env, info, "useWidenedProducts", widens); }

// Whether autocast computes this product in bfloat16, and widening it pays.
bool suitsWideningWhenCast(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const auto isCast = [](const at::Tensor& tensor) { return isPlainFloat(tensor) || isPlainHalf(tensor); };
  if (!widensProducts() || at::autocast::get_autocast_dtype(at::kCPU) != at::kBFloat16) return false;
  if (bias.has_value() && !(isCast(*bias) && bias->dim() == 1 && bias->size(0) == weight.size(0))) return false;
  return isCast(x) && isCast(weight) && suitsWidening(x.sizes(), weight.sizes());
}

bool isCasting() {
  return at::autocast::is_autocast_enabled(at::kCPU) && !c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::AutocastCPU);
}

}  // namespace

bool widensProducts() { return widens && panelKernel() != PanelKernel::none; }

at::Tensor linearLayer(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  if (suits(x, weight, bias)) return FasterLinear::apply(x, weight, bias, false);
  if (!isCasting()) {
    if (suitsWidening(x, weight, bias)) return FasterLinear::apply(x, weight, bias, true);
  } else if (suitsWideningWhenCast(x, weight, bias)) {
    const std::optional<at::Tensor> narrowBias = bias.has_value() ? std::optional(autocasted(*bias)) : bias;
    return FasterLinear::apply(autocasted(x), autocasted(weight), narrowBias, true);
  }
  return at::linear(x, weight, bias);
}

at::Tensor linearValue(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  if (suits(x, weight, bias)) return oneDnnProduct(x, weight, bias);
  return suitsWidening(x, weight, bias) ? fastestProduct(x, weight, bias, true) : at::linear(x, weight, bias);
}

at::Tensor linearInputGradient(const at::Tensor& gradient, const at::Tensor& weight) { return linearValue(gradient, weight.t()); }

at::Tensor linearWeightGradient(const at::Tensor& gradient, const at::Tensor& x) {
  const at::Tensor transposed = gradient.t();
  // In float32 MKL is the faster one here on any processor.
  if (at::GradMode::is_enabled() || !suitsWidening(transposed, x.t(), std::nullopt)) return transposed.mm(x);
  return productOfHalves(transposed, x, std::nullopt);
}

at::Tensor autocasted(const at::Tensor& tensor) {
  return at::autocast::cached_cast(at::autocast::get_autocast_dtype(at::kCPU), tensor, at::kCPU);
}

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor", &linearLayer);
}

void defineLinear(napi_env env, napi_value exports) {
  define(env, exports, "useOneDnnLinear", setOneDnn);
  define(env, exports, "useWidenedProducts", setWidening);
}

}  // namespace posttrain
