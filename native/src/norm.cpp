// Root-mean-square normalisation in one pass over the data; libtorch's is made of six operators on the CPU. And the products
// of what was normalised, which keep x alone and normalise it again for their backward pass.
#include "norm.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <type_traits>

#include "linear.h"
#include "parallel.h"

namespace posttrain {
namespace {

// Of the rows in the backward pass: as many threads as may share them.
constexpr int64_t PARTS = 64;

// What one kernel reads and writes: rows of `Number`, scaled by factors of `Factor`.
template <typename Number, typename Factor>
struct Rows {
  const Number* x;
  const Factor* weight;
  int64_t width;
};

// What is scaled by factors of its own dtype is rounded to it before, as an operator's result is; by wider ones, after it.
template <typename Number, typename Factor, typename Value>
INLINE Value readyToScale(Value normal) {
  if constexpr (std::is_same_v<Number, Factor>) return storedAs(static_cast<const Number*>(nullptr), normal);
  else return normal;
}

template <typename Number, typename Factor>
INLINE void normalise(Rows<Number, Factor> row, float eps, Number* y, float* scale) {
  const auto [x, weight, width] = row;
  const float inverse = inverseRms(x, width, eps);
  const int64_t even = width / LANES * LANES;
  for (int64_t at = 0; at < even; at += LANES)
    store(y + at, readyToScale<Number, Factor>(load(x + at) * inverse) * load(weight + at));
  for (int64_t at = even; at < width; at++)
    y[at] = static_cast<Number>(readyToScale<Number, Factor>(static_cast<float>(x[at]) * inverse) *
                                static_cast<float>(weight[at]));
  *scale = inverse;
}

// The gradient of x: inverse · (w·g − x̂ · mean(w·g·x̂)), x̂ = x·inverse; and g·x̂ added to that of the weight.
template <typename Number, typename Factor>
INLINE void differentiate(Rows<Number, Factor> row, const Number* g, float inverse, Number* ofX, float* ofWeight) {
  const auto [x, weight, width] = row;
  const int64_t even = width / LANES * LANES;
  Floats products{};
  for (int64_t at = 0; at < even; at += LANES) products += load(x + at) * load(g + at) * load(weight + at);
  float sum = sumOf(products);
  for (int64_t at = even; at < width; at++)
    sum += static_cast<float>(x[at]) * static_cast<float>(g[at]) * static_cast<float>(weight[at]);
  const float mean = sum * inverse * inverse / static_cast<float>(width);
  for (int64_t at = 0; at < even; at += LANES) {
    const Floats values = load(x + at), incoming = load(g + at);
    store(ofX + at, inverse * (load(weight + at) * incoming - values * mean));
    store(ofWeight + at, load(ofWeight + at) + incoming * readyToScale<Number, Factor>(values * inverse));
  }
  for (int64_t at = even; at < width; at++) {
    const float value = static_cast<float>(x[at]), incoming = static_cast<float>(g[at]);
    ofX[at] = static_cast<Number>(inverse * (static_cast<float>(weight[at]) * incoming - value * mean));
    ofWeight[at] += incoming * readyToScale<Number, Factor>(value * inverse);
  }
}

using Half = c10::BFloat16;
// Of one row each. Processors are told apart by plain functions alone.
PER_PROCESSOR void normaliseRow(Rows<float, float> row, float eps, float* y, float* scale) { normalise(row, eps, y, scale); }
PER_PROCESSOR void normaliseRow(Rows<Half, Half> row, float eps, Half* y, float* scale) { normalise(row, eps, y, scale); }
PER_PROCESSOR void normaliseRow(Rows<Half, float> row, float eps, Half* y, float* scale) { normalise(row, eps, y, scale); }
PER_PROCESSOR void differentiateRow(Rows<float, float> row, const float* g, float inverse, float* ofX, float* ofWeight) {
  differentiate(row, g, inverse, ofX, ofWeight);
}
PER_PROCESSOR void differentiateRow(Rows<Half, Half> row, const Half* g, float inverse, Half* ofX, float* ofWeight) {
  differentiate(row, g, inverse, ofX, ofWeight);
}
PER_PROCESSOR void differentiateRow(Rows<Half, float> row, const Half* g, float inverse, Half* ofX, float* ofWeight) {
  differentiate(row, g, inverse, ofX, ofWeight);
}

bool isOnCpu(const at::Tensor& tensor) { return tensor.layout() == at::kStrided && tensor.is_cpu(); }

// Calls compute<Number, Factor> by the dtypes of x and of the weight, which suit.
template <typename Compute>
void byDtypes(const at::Tensor& x, const at::Tensor& weight, Compute&& compute) {
  if (x.scalar_type() == at::kFloat) compute.template operator()<float, float>();
  else if (weight.scalar_type() == at::kFloat) compute.template operator()<Half, float>();
  else compute.template operator()<Half, Half>();
}

}  // namespace

bool suitsRmsNorm(const at::Tensor& x, const at::Tensor& weight) {
  if (!isOnCpu(x) || !isOnCpu(weight) || weight.dim() != 1 || x.dim() == 0 || x.size(-1) != weight.size(0)) return false;
  const at::ScalarType of = x.scalar_type(), by = weight.scalar_type();
  return x.numel() > 0 && (of == at::kFloat || of == at::kBFloat16) && (by == of || by == at::kFloat);
}

bool suitsNormAndProducts(const at::Tensor& x, const at::Tensor& norm, at::ScalarType dtype, Cast cast) {
  const bool isCast = cast == Cast::Narrow && x.scalar_type() == at::kFloat && dtype == at::kBFloat16;
  return suitsRmsNorm(x, norm) && (isCast || x.scalar_type() == dtype);
}

at::Tensor rmsNormFor(const at::Tensor& x, const at::Tensor& norm, double eps, at::ScalarType dtype, Cast cast) {
  const at::Tensor values = rmsNorm(x, norm, eps);
  return cast == Cast::Narrow && values.scalar_type() == at::kFloat ? values.to(dtype) : values;
}

Normalised normalisedRows(const at::Tensor& input, const at::Tensor& weight, double eps) {
  const at::Tensor x = input.contiguous(), factors = weight.contiguous();
  const int64_t width = x.size(-1), rows = x.numel() / width;
  at::Tensor values = at::empty_like(x), scales = at::empty({rows}, x.options().dtype(at::kFloat));
  float* const scale = scales.mutable_data_ptr<float>();
  byDtypes(x, factors, [&]<typename Number, typename Factor>() {
    const Number* const from = x.const_data_ptr<Number>();
    const Factor* const by = factors.const_data_ptr<Factor>();
    Number* const to = values.mutable_data_ptr<Number>();
    // A few rows are done before a second thread has begun.
    parallelFor(rows, std::max<int64_t>(1, 16384 / width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++)
        normaliseRow(Rows<Number, Factor>{from + row * width, by, width}, static_cast<float>(eps), to + row * width, scale + row);
    });
  });
  return {values, scales};
}

NormGradients normGradients(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& scales,
                            const at::Tensor& incoming) {
  const int64_t width = input.size(-1), rows = input.numel() / width;
  const at::Tensor x = input.contiguous(), gradient = incoming.contiguous(), factors = weight.contiguous();
  at::Tensor ofX = at::empty_like(x);
  // One sum per part of the rows: the result depends neither on how many threads there are nor on their order.
  const int64_t part = (rows + PARTS - 1) / PARTS;
  at::Tensor ofWeight = at::zeros({(rows + part - 1) / part, width}, scales.options());
  const float* const scale = scales.const_data_ptr<float>();
  float* const added = ofWeight.mutable_data_ptr<float>();
  byDtypes(x, factors, [&]<typename Number, typename Factor>() {
    const Number *const from = x.const_data_ptr<Number>(), *const g = gradient.const_data_ptr<Number>();
    const Factor* const by = factors.const_data_ptr<Factor>();
    Number* const to = ofX.mutable_data_ptr<Number>();
    parallelFor(rows, part, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++)
        differentiateRow(Rows<Number, Factor>{from + row * width, by, width}, g + row * width, scale[row], to + row * width,
                 added + row / part * width);
    });
  });
  return {ofX, ofWeight.sum(0).to(weight.scalar_type())};
}

namespace {

struct FusedRmsNorm : torch::autograd::Function<FusedRmsNorm> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double eps) {
    const Normalised normalised = normalisedRows(x, weight, eps);
    context->save_for_backward({x, weight, normalised.scales});
    context->saved_data["eps"] = eps;
    return normalised.values;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &scales = saved[2];
    if (!gradients[0].defined()) return {{}, {}, {}};
    // With operators that have gradients themselves.
    if (at::GradMode::is_enabled()) {
      const at::Tensor wide = x.to(at::kFloat), gradient = gradients[0].to(at::kFloat);
      const at::Tensor inverse = (wide.square().mean(-1, true) + context->saved_data["eps"].toDouble()).rsqrt();
      const at::Tensor normal = wide * inverse, product = gradient * weight;
      const at::Tensor ofX = inverse * (product - normal * (product * normal).mean(-1, true));
      const at::Tensor ofWeight = (gradient * normal).reshape({-1, x.size(-1)}).sum(0);
      return {ofX.to(x.scalar_type()), ofWeight.to(weight.scalar_type()), {}};
    }
    const NormGradients found = normGradients(x, weight, scales, gradients[0]);
    return {found.ofX, found.ofWeight, {}};
  }
};

}  // namespace

// rms_norm(x [..., D], weight [D], eps) → x / √(mean(x²) + eps) · weight, the dtype of x. What is narrower than float32 is
// computed in it, and rounded before it is scaled by a weight of its own dtype, or after it is scaled by a wider one;
// libtorch's rms_norm scales before it rounds.
at::Tensor rmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (suitsRmsNorm(x, weight)) return FusedRmsNorm::apply(x, weight, eps);
  if (!at::isReducedFloatingType(x.scalar_type())) return at::rms_norm(x, {x.size(-1)}, weight, eps);
  const at::Tensor wide = x.to(at::kFloat), normal = wide * (wide.square().mean(-1, true) + eps).rsqrt();
  return weight.scalar_type() == x.scalar_type() ? normal.to(x.scalar_type()) * weight : (normal * weight).to(x.scalar_type());
}

namespace {

struct NormLinears : torch::autograd::Function<NormLinears> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                                                const at::Tensor& norm, at::TensorList weights, at::TensorList biases,
                                                double eps) {
    torch::autograd::variable_list kept = {x, norm};
    kept.insert(kept.end(), weights.begin(), weights.end());
    context->save_for_backward(std::move(kept));
    context->saved_data["eps"] = eps;
    context->saved_data["biases"] = static_cast<int64_t>(biases.size());
    context->set_materialize_grads(false);
    const at::Tensor values = normalisedRows(x, norm, eps).values.to(weights[0].scalar_type());
    torch::autograd::variable_list outputs;
    for (size_t index = 0; index < weights.size(); index++)
      outputs.push_back(linearValue(values, weights[index], biases.empty() ? std::nullopt : std::optional(biases[index])));
    return outputs;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &norm = saved[1];
    const size_t count = saved.size() - 2, biases = context->saved_data["biases"].toInt();
    // What was normalised is cut off from x here, so that a gradient of this gradient would lack what passes through it.
    TORCH_CHECK(!at::GradMode::is_enabled(), "norm_linears has no second derivative: expected a backward pass without createGraph");
    const Normalised normalised = normalisedRows(x, norm, context->saved_data["eps"].toDouble());
    const at::Tensor rows = normalised.values.reshape({-1, x.size(-1)}).to(saved[2].scalar_type());
    const bool goesOn = context->needs_input_grad(0) || context->needs_input_grad(1);
    // Of x, norm, weights, biases and eps.
    torch::autograd::variable_list found(2 + count + biases + 1);
    at::Tensor ofValues;
    for (size_t index = 0; index < count; index++) {
      if (!gradients[index].defined()) continue;
      const at::Tensor gradient = gradients[index].reshape({-1, gradients[index].size(-1)});
      if (goesOn) {
        const at::Tensor part = linearInputGradient(gradient, saved[2 + index]);
        if (ofValues.defined()) ofValues.add_(part);
        else ofValues = part.to(x.scalar_type());
      }
      if (context->needs_input_grad(2 + index)) found[2 + index] = linearWeightGradient(gradient, rows);
      if (biases > 0 && context->needs_input_grad(2 + count + index)) found[2 + count + index] = gradient.sum(0);
    }
    if (!ofValues.defined()) return found;
    const NormGradients ofNorm = normGradients(x, norm, normalised.scales, ofValues);
    found[0] = ofNorm.ofX;
    found[1] = ofNorm.ofWeight;
    return found;
  }
};

std::vector<at::Tensor> plainOrFused(const at::Tensor& x, const at::Tensor& norm, double eps, at::TensorList weights,
                                     at::TensorList biases, Cast cast) {
  const at::ScalarType dtype = weights[0].scalar_type();
  const auto fits = [&](const at::Tensor& tensor) { return isOnCpu(tensor) && tensor.scalar_type() == dtype; };
  bool isPlain = suitsNormAndProducts(x, norm, dtype, cast);
  for (const at::Tensor& weight : weights) isPlain &= fits(weight) && weight.dim() == 2;
  for (const at::Tensor& bias : biases) isPlain &= fits(bias);
  if (isPlain) return NormLinears::apply(x, norm, weights, biases, eps);
  const at::Tensor values = rmsNormFor(x, norm, eps, dtype, cast);
  std::vector<at::Tensor> outputs;
  for (size_t index = 0; index < weights.size(); index++)
    outputs.push_back(linearLayer(values, weights[index], biases.empty() ? std::nullopt : std::optional(biases[index])));
  return outputs;
}

// norm_linears(x [..., D], norm [D], eps, weights [I, D] …, biases [I] … or none) → rms_norm(x, norm, eps) · weightᵀ + bias, each.
// Keeps x for its backward pass, and not what was normalised.
std::vector<at::Tensor> normLinears(const at::Tensor& x, const at::Tensor& norm, double eps, at::TensorList weights,
                                    at::TensorList biases) {
  TORCH_CHECK(!weights.empty() && (biases.empty() || biases.size() == weights.size()),
              "expected weights, and a bias for each or none, received ", weights.size(), " and ", biases.size());
  if (!at::autocast::is_autocast_enabled(at::kCPU)) return plainOrFused(x, norm, eps, weights, biases, Cast::None);
  std::vector<at::Tensor> narrowWeights, narrowBiases;
  for (const at::Tensor& weight : weights) narrowWeights.push_back(autocasted(weight));
  for (const at::Tensor& bias : biases) narrowBiases.push_back(autocasted(bias));
  const c10::impl::ExcludeDispatchKeyGuard without(c10::DispatchKey::AutocastCPU);
  return plainOrFused(x, norm, eps, narrowWeights, narrowBiases, Cast::Narrow);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("rms_norm(Tensor input, Tensor weight, float eps) -> Tensor", &rmsNorm);
  library.def("norm_linears(Tensor input, Tensor norm, float eps, Tensor[] weights, Tensor[] biases) -> Tensor[]", &normLinears);
}

}  // namespace posttrain
