// A linear layer whose large float32 products on the CPU run on oneDNN where MKL is slow, with the gradients of any other.
//
// MKL takes its AVX2 kernels on processors of AMD; oneDNN takes AVX-512 ones: less time for a product of a thousand rows,
// most of all for a large output (`npm run bench -- parts`). Which of the two computes depends on the processor and the
// shapes alone, so that a run that is repeated or resumed computes the same.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstring>

#include "linear.h"
#include "napi.h"

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

struct OneDnnLinear : torch::autograd::Function<OneDnnLinear> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    context->save_for_backward({x, weight});
    context->saved_data["has bias"] = bias.has_value();
    return oneDnnProduct(x, weight, bias);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &gradient = gradients[0];
    if (!gradient.defined()) return {{}, {}, {}};
    const at::Tensor rows = gradient.reshape({-1, gradient.size(-1)});
    at::Tensor ofX, ofWeight, ofBias;
    if (context->needs_input_grad(0)) {
      // oneDNN's products have no gradient of their own.
      ofX = at::GradMode::is_enabled() ? gradient.matmul(weight) : oneDnnProduct(gradient, weight.t(), std::nullopt);
    }
    // MKL is the faster one here.
    if (context->needs_input_grad(1)) ofWeight = rows.t().mm(x.reshape({-1, x.size(-1)}));
    if (context->saved_data["has bias"].toBool() && context->needs_input_grad(2)) ofBias = rows.sum(0);
    return {ofX, ofWeight, ofBias};
  }
};

// useOneDnnLinear(enabled) → whether it was before
napi_value setOneDnn(napi_env env, napi_callback_info info) {
  return guard(env, "useOneDnnLinear", [&] {
    const Arguments arguments(env, info);
    const bool before = useOneDnn;
    useOneDnn = asBool(env, arguments[0]);
    return fromBool(env, before);
  });
}

}  // namespace

at::Tensor linearLayer(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  return suits(x, weight, bias) ? OneDnnLinear::apply(x, weight, bias) : at::linear(x, weight, bias);
}

at::Tensor linearValue(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  return suits(x, weight, bias) ? oneDnnProduct(x, weight, bias) : at::linear(x, weight, bias);
}

at::Tensor linearInputGradient(const at::Tensor& gradient, const at::Tensor& weight) { return linearValue(gradient, weight.t()); }

at::Tensor autocasted(const at::Tensor& tensor) {
  return at::autocast::cached_cast(at::autocast::get_autocast_dtype(at::kCPU), tensor, at::kCPU);
}

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor", &linearLayer);
}

void defineLinear(napi_env env, napi_value exports) { define(env, exports, "useOneDnnLinear", setOneDnn); }

}  // namespace posttrain
