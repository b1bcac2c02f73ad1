// The feed-forward layer with a gate, act(gate) · up. libtorch takes two passes over memory and keeps the activation and the
// product for the backward pass; here it is one pass, and both are computed again from gate and up.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <string>

#include "linear.h"
#include "norm.h"
#include "parallel.h"
#include "vectors.h"

namespace posttrain {
namespace {

// Numbers that one thread should have at least.
constexpr int64_t GRAIN = 16384;

enum class Activation { Silu, GeluTanh };

Activation activationOf(std::string_view name) {
  TORCH_CHECK(name == "silu" || name == "gelu_tanh", "expected the activation silu or gelu_tanh, received ", name);
  return name == "silu" ? Activation::Silu : Activation::GeluTanh;
}

// act(x) and its derivative. Both activations are x·σ(p(x)): silu has p(x) = x, and gelu by its tanh approximation
// p(x) = 2·√(2/π)·(x + 0.044715·x³), because (1 + tanh(z)) / 2 = σ(2z).
template <Activation activation, typename Value>
INLINE void activate(Value x, Value& value, Value& slope) {
  constexpr float FACTOR = 1.5957691216F, CUBE = 0.044715F;
  Value inner = x, ofInner = Value{} + 1;
  if constexpr (activation == Activation::GeluTanh) {
    const Value square = x * x;
    inner = FACTOR * x * (1 + CUBE * square);
    ofInner = FACTOR * (1 + 3 * CUBE * square);
  }
  // Beyond it e^-x is no number, and the share is 0 either way.
  const Value share = 1 / (1 + exponential(-atLeast(inner, -80)));
  value = x * share;
  slope = share + value * (1 - share) * ofInner;
}

// The activation is rounded to the dtype before it is multiplied, as an operator's result is.
template <Activation activation, typename Number>
INLINE void productOf(const Number* gate, const Number* up, Number* to, int64_t width) {
  const int64_t even = width / LANES * LANES;
  for (int64_t at = 0; at < even; at += LANES) {
    Floats value, slope;
    activate<activation>(load(gate + at), value, slope);
    store(to + at, storedAs(to, value) * load(up + at));
  }
  for (int64_t at = even; at < width; at++) {
    float value, slope;
    activate<activation>(static_cast<float>(gate[at]), value, slope);
    to[at] = static_cast<Number>(storedAs(to, value) * static_cast<float>(up[at]));
  }
}

// One row of everything that the backward pass reads and writes. `product`, which may be `gradient`, is not always asked for.
template <typename Number>
struct Row {
  const Number *gate, *up, *gradient;
  Number *ofGate, *ofUp, *product;
};

template <Activation activation, typename Number>
INLINE void gradientsOf(Row<Number> row, int64_t width) {
  const int64_t even = width / LANES * LANES;
  for (int64_t at = 0; at < even; at += LANES) {
    Floats value, slope;
    activate<activation>(load(row.gate + at), value, slope);
    const Floats up = load(row.up + at), gradient = load(row.gradient + at);
    value = storedAs(row.gate, value);
    store(row.ofGate + at, gradient * up * slope);
    store(row.ofUp + at, gradient * value);
    if (row.product != nullptr) store(row.product + at, value * up);
  }
  for (int64_t at = even; at < width; at++) {
    float value, slope;
    activate<activation>(static_cast<float>(row.gate[at]), value, slope);
    const float up = static_cast<float>(row.up[at]), gradient = static_cast<float>(row.gradient[at]);
    value = storedAs(row.gate, value);
    row.ofGate[at] = static_cast<Number>(gradient * up * slope);
    row.ofUp[at] = static_cast<Number>(gradient * value);
    if (row.product != nullptr) row.product[at] = static_cast<Number>(value * up);
  }
}

PER_PROCESSOR void siluFloats(const float* gate, const float* up, float* to, int64_t width) {
  productOf<Activation::Silu>(gate, up, to, width);
}
PER_PROCESSOR void geluFloats(const float* gate, const float* up, float* to, int64_t width) {
  productOf<Activation::GeluTanh>(gate, up, to, width);
}
PER_PROCESSOR void siluHalves(const c10::BFloat16* gate, const c10::BFloat16* up, c10::BFloat16* to, int64_t width) {
  productOf<Activation::Silu>(gate, up, to, width);
}
PER_PROCESSOR void geluHalves(const c10::BFloat16* gate, const c10::BFloat16* up, c10::BFloat16* to, int64_t width) {
  productOf<Activation::GeluTanh>(gate, up, to, width);
}
PER_PROCESSOR void backSiluFloats(Row<float> row, int64_t width) { gradientsOf<Activation::Silu>(row, width); }
PER_PROCESSOR void backGeluFloats(Row<float> row, int64_t width) { gradientsOf<Activation::GeluTanh>(row, width); }
PER_PROCESSOR void backSiluHalves(Row<c10::BFloat16> row, int64_t width) { gradientsOf<Activation::Silu>(row, width); }
PER_PROCESSOR void backGeluHalves(Row<c10::BFloat16> row, int64_t width) { gradientsOf<Activation::GeluTanh>(row, width); }

template <typename Number>
auto forwardKernel(Activation activation) {
  if constexpr (std::is_same_v<Number, float>) return activation == Activation::Silu ? &siluFloats : &geluFloats;
  else return activation == Activation::Silu ? &siluHalves : &geluHalves;
}

template <typename Number>
auto backwardKernel(Activation activation) {
  if constexpr (std::is_same_v<Number, float>) return activation == Activation::Silu ? &backSiluFloats : &backGeluFloats;
  else return activation == Activation::Silu ? &backSiluHalves : &backGeluHalves;
}

// As rows of `width` numbers that lie together; a view of the halves of a larger tensor stays one.
at::Tensor asRows(const at::Tensor& tensor) {
  const at::Tensor rows = tensor.reshape({-1, tensor.size(-1)});
  return rows.stride(1) == 1 ? rows : rows.contiguous();
}

bool isKnown(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && tensor.is_cpu() &&
         (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16);
}

at::Tensor activated(const at::Tensor& gate, Activation activation) {
  return activation == Activation::Silu ? at::silu(gate) : at::gelu(gate, "tanh");
}

at::Tensor activationGradient(const at::Tensor& gradient, const at::Tensor& gate, Activation activation) {
  if (activation == Activation::GeluTanh) return at::gelu_backward(gradient, gate, "tanh");
  const at::Tensor share = at::sigmoid(gate);
  return gradient * share * (1 + gate * (1 - share));
}

// to = act(gate) · up, all [N, I]; `to` may be gate or up.
template <typename Number>
void multiply(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& to, Activation activation) {
  const Number *const gates = gate.const_data_ptr<Number>(), *const ups = up.const_data_ptr<Number>();
  Number* const results = to.mutable_data_ptr<Number>();
  const int64_t width = gate.size(1), gateStep = gate.stride(0), upStep = up.stride(0), step = to.stride(0);
  const auto kernel = forwardKernel<Number>(activation);
  parallelFor(gate.size(0), std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) kernel(gates + row * gateStep, ups + row * upStep, results + row * step, width);
  });
}

// What the backward pass computes of gate, up and the gradient of their product. All [N, I].
struct Gradients {
  at::Tensor ofGate, ofUp, product;
};

template <typename Number>
void differentiate(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& gradient, const Gradients& to,
                   Activation activation) {
  const Number *const gates = gate.const_data_ptr<Number>(), *const ups = up.const_data_ptr<Number>();
  const Number* const incoming = gradient.const_data_ptr<Number>();
  Number *const ofGates = to.ofGate.mutable_data_ptr<Number>(), *const ofUps = to.ofUp.mutable_data_ptr<Number>();
  Number* const products = to.product.defined() ? to.product.mutable_data_ptr<Number>() : nullptr;
  const int64_t width = gate.size(1), gateStep = gate.stride(0), upStep = up.stride(0), step = gradient.stride(0);
  const int64_t ofGateStep = to.ofGate.stride(0), ofUpStep = to.ofUp.stride(0);
  const int64_t productStep = to.product.defined() ? to.product.stride(0) : 0;
  const auto kernel = backwardKernel<Number>(activation);
  parallelFor(gate.size(0), std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      Number* const product = products == nullptr ? nullptr : products + row * productStep;
      kernel({gates + row * gateStep, ups + row * upStep, incoming + row * step, ofGates + row * ofGateStep,
              ofUps + row * ofUpStep, product},
             width);
    }
  });
}

// Into `to`, where it is known how; with libtorch's operators otherwise.
void multiplyInto(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& to, Activation activation) {
  if (gate.numel() == 0) return;
  if (!isKnown(gate)) to.copy_(activated(gate, activation).mul_(up));
  else if (gate.scalar_type() == at::kFloat) multiply<float>(gate, up, to, activation);
  else multiply<c10::BFloat16>(gate, up, to, activation);
}

void differentiateInto(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& gradient, const Gradients& to,
                       Activation activation) {
  if (gate.numel() == 0) return;
  if (isKnown(gate)) {
    if (gate.scalar_type() == at::kFloat) differentiate<float>(gate, up, gradient, to, activation);
    else differentiate<c10::BFloat16>(gate, up, gradient, to, activation);
    return;
  }
  const at::Tensor values = activated(gate, activation);
  to.ofGate.copy_(activationGradient(gradient * up, gate, activation));
  to.ofUp.copy_(gradient * values);
  if (to.product.defined()) to.product.copy_(values.mul_(up));
}

struct Pair {
  at::Tensor gate, up;
};

// Gate and up side by side in one tensor.
Pair halvesOf(const at::Tensor& both) {
  const int64_t width = both.size(-1) / 2;
  return {both.narrow(-1, 0, width), both.narrow(-1, width, width)};
}

struct GatedActivation : torch::autograd::Function<GatedActivation> {
  // Without `up`, `gate` has both.
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& gate,
                            const std::optional<at::Tensor>& up, int64_t activation) {
    context->saved_data["activation"] = activation;
    if (up.has_value()) context->save_for_backward({gate, *up});
    else context->save_for_backward({gate});
    const Pair parts = up.has_value() ? Pair{gate, *up} : halvesOf(gate);
    at::Tensor result = at::empty(parts.gate.sizes(), gate.options());
    multiplyInto(asRows(parts.gate), asRows(parts.up), result.view({-1, result.size(-1)}), static_cast<Activation>(activation));
    return result;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const auto activation = static_cast<Activation>(context->saved_data["activation"].toInt());
    const bool isApart = saved.size() > 1;
    if (!gradients[0].defined()) return {{}, {}, {}};
    const Pair parts = isApart ? Pair{saved[0], saved[1]} : halvesOf(saved[0]);
    // With operators that have gradients themselves.
    if (at::GradMode::is_enabled()) {
      const at::Tensor ofGate = activationGradient(gradients[0] * parts.up, parts.gate, activation);
      const at::Tensor ofUp = gradients[0] * activated(parts.gate, activation);
      if (isApart) return {ofGate, ofUp, {}};
      return {at::cat({ofGate, ofUp}, -1), {}, {}};
    }
    const at::Tensor rows = asRows(gradients[0]);
    if (isApart) {
      const at::Tensor ofGate = at::empty(rows.sizes(), rows.options()), ofUp = at::empty(rows.sizes(), rows.options());
      differentiateInto(asRows(parts.gate), asRows(parts.up), rows, {ofGate, ofUp, {}}, activation);
      return {ofGate.view(parts.gate.sizes()), ofUp.view(parts.gate.sizes()), {}};
    }
    const at::Tensor ofBoth = at::empty({rows.size(0), 2 * rows.size(1)}, rows.options());
    const Pair to = halvesOf(ofBoth);
    differentiateInto(asRows(parts.gate), asRows(parts.up), rows, {to.gate, to.up, {}}, activation);
    return {ofBoth.view(saved[0].sizes()), {}, {}};
  }
};

// gated_activation(gate [..., I], up [..., I], activation) → act(gate) · up; without `up`, gate is [..., 2I] and has both.
at::Tensor gatedActivation(const at::Tensor& gate, const std::optional<at::Tensor>& up, std::string_view name) {
  const Activation activation = activationOf(name);
  const bool isApart = up.has_value();
  TORCH_CHECK(gate.dim() > 0 && (!isApart || gate.sizes() == up->sizes()), "expected gate and up of one shape, received ",
              gate.sizes(), " and ", isApart ? up->sizes() : gate.sizes());
  TORCH_CHECK(isApart || gate.size(-1) % 2 == 0, "expected gate and up side by side, received ", gate.sizes());
  const bool fits = isKnown(gate) && (!isApart || (isKnown(*up) && up->scalar_type() == gate.scalar_type()));
  if (fits) return GatedActivation::apply(gate, up, static_cast<int64_t>(activation));
  const Pair parts = isApart ? Pair{gate, *up} : halvesOf(gate);
  return activated(parts.gate, activation) * parts.up;
}

struct GatedMlp : torch::autograd::Function<GatedMlp> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& gateWeight,
                            const at::Tensor& upWeight, const at::Tensor& downWeight, const std::optional<at::Tensor>& norm,
                            double eps, int64_t activation) {
    const at::Tensor read = norm.has_value() ? normalisedRows(x, *norm, eps).values.to(gateWeight.scalar_type()) : x;
    const at::Tensor gate = linearValue(read, gateWeight), up = linearValue(read, upWeight);
    const at::Tensor product = at::empty(gate.sizes(), gate.options());
    multiplyInto(asRows(gate), asRows(up), product.view({-1, product.size(-1)}), static_cast<Activation>(activation));
    context->save_for_backward({x, gateWeight, upWeight, downWeight, gate, up, norm.value_or(at::Tensor())});
    context->saved_data["activation"] = activation;
    context->saved_data["eps"] = eps;
    return linearValue(product, downWeight);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &gateWeight = saved[1], &upWeight = saved[2], &downWeight = saved[3], &norm = saved[6];
    const auto activation = static_cast<Activation>(context->saved_data["activation"].toInt());
    const at::Tensor& incoming = gradients[0];
    if (!incoming.defined()) return {{}, {}, {}, {}, {}, {}, {}};
    // gate and up are cut off from x here, so that a gradient of this gradient would lack what passes through them.
    TORCH_CHECK(!at::GradMode::is_enabled(), "gated_mlp has no second derivative: expected a backward pass without createGraph");
    const at::Tensor outer = asRows(incoming), gate = asRows(saved[4]), up = asRows(saved[5]);
    const bool needsDown = context->needs_input_grad(3);
    at::Tensor inner = linearInputGradient(outer, downWeight).contiguous();
    const at::Tensor ofGate = at::empty(inner.sizes(), inner.options()), ofUp = at::empty(inner.sizes(), inner.options());
    // The product takes the place of its own gradient, which is read no more.
    differentiateInto(gate, up, inner, {ofGate, ofUp, needsDown ? inner : at::Tensor()}, activation);
    at::Tensor ofX, ofGateWeight, ofUpWeight, ofDownWeight, ofNorm;
    if (needsDown) ofDownWeight = linearWeightGradient(outer, inner);
    inner.reset();
    Normalised read{x, {}};
    if (norm.defined()) read = normalisedRows(x, norm, context->saved_data["eps"].toDouble());
    if (context->needs_input_grad(0) || (norm.defined() && context->needs_input_grad(4))) {
      ofX = linearInputGradient(ofGate, gateWeight).add_(linearInputGradient(ofUp, upWeight)).view(x.sizes());
      if (norm.defined()) {
        const NormGradients further = normGradients(x, norm, read.scales, ofX.to(x.scalar_type()));
        ofX = further.ofX;
        ofNorm = further.ofWeight;
      }
    }
    const at::Tensor rows = read.values.reshape({-1, x.size(-1)}).to(gateWeight.scalar_type());
    if (context->needs_input_grad(1)) ofGateWeight = linearWeightGradient(ofGate, rows);
    if (context->needs_input_grad(2)) ofUpWeight = linearWeightGradient(ofUp, rows);
    return {ofX, ofGateWeight, ofUpWeight, ofDownWeight, ofNorm, {}, {}};
  }
};

at::Tensor plainOrFusedMlp(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up, const at::Tensor& down,
                           std::string_view name, const std::optional<at::Tensor>& norm, double eps, Cast cast) {
  const Activation activation = activationOf(name);
  const at::ScalarType dtype = gate.scalar_type();
  const auto fits = [&](const at::Tensor& weight) {
    return weight.is_cpu() && weight.layout() == at::kStrided && weight.dim() == 2 && weight.scalar_type() == dtype;
  };
  const bool suits = norm.has_value() ? suitsNormAndProducts(x, *norm, dtype, cast) : x.scalar_type() == dtype;
  const bool isPlain = x.is_cpu() && at::isFloatingType(dtype) && x.dim() > 0 && fits(gate) && fits(up) && fits(down) &&
                       gate.sizes() == up.sizes();
  if (isPlain && suits) return GatedMlp::apply(x, gate, up, down, norm, eps, static_cast<int64_t>(activation));
  if (norm.has_value())
    return plainOrFusedMlp(rmsNormFor(x, *norm, eps, dtype, cast), gate, up, down, name, std::nullopt, eps, cast);
  return at::linear(gatedActivation(at::linear(x, gate), at::linear(x, up), name), down);
}

// gated_mlp(x [..., D], gate [I, D], up [I, D], down [D', I], activation, norm [D], eps) → (act(h·gateᵀ) · (h·upᵀ)) · downᵀ, with
// h = rms_norm(x, norm, eps), or x without a norm. Keeps x, h·gateᵀ and h·upᵀ for its backward pass: neither h, nor the
// activation, nor the product.
at::Tensor gatedMlp(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up, const at::Tensor& down,
                    std::string_view name, const std::optional<at::Tensor>& norm, double eps) {
  if (!at::autocast::is_autocast_enabled(at::kCPU)) return plainOrFusedMlp(x, gate, up, down, name, norm, eps, Cast::None);
  const at::Tensor read = norm.has_value() ? x : autocasted(x);
  const at::Tensor weights[] = {autocasted(gate), autocasted(up), autocasted(down)};
  const c10::impl::ExcludeDispatchKeyGuard without(c10::DispatchKey::AutocastCPU);
  return plainOrFusedMlp(read, weights[0], weights[1], weights[2], name, norm, eps, Cast::Narrow);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("gated_activation(Tensor gate, Tensor? up, str activation) -> Tensor", &gatedActivation);
  library.def(
      "gated_mlp(Tensor input, Tensor gate, Tensor up, Tensor down, str activation, Tensor? norm=None, float eps=0) -> Tensor",
      &gatedMlp);
}

}  // namespace posttrain
