// Root-mean-square normalisation in one pass over the data; libtorch's is made of six operators on the CPU. And the products
// of what was normalised, which keep x alone and normalise it again for their backward pass.
#include "norm.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>

#include "linear.h"
#include "parallel.h"
#include "vectors.h"

namespace posttrain {
namespace {

// Of the rows in the backward pass: as many threads as may share them.
constexpr int64_t PARTS = 64;

INLINE float total(Floats value) { return sums(value, value, value, value)[0]; }

// 1/√(mean(x²) + eps) of one row.
INLINE float inverseRms(const float* x, int64_t width, float eps) {
  const int64_t even = width / LANES * LANES;
  Floats squares{};
  for (int64_t at = 0; at < even; at += LANES) squares += load(x + at) * load(x + at);
  float sum = total(squares);
  for (int64_t at = even; at < width; at++) sum += x[at] * x[at];
  return 1 / std::sqrt(sum / static_cast<float>(width) + eps);
}

PER_PROCESSOR void normaliseRow(const float* x, const float* weight, int64_t width, float eps, float* y, float* scale) {
  const float inverse = inverseRms(x, width, eps);
  const int64_t even = width / LANES * LANES;
  for (int64_t at = 0; at < even; at += LANES) store(y + at, load(x + at) * inverse * load(weight + at));
  for (int64_t at = even; at < width; at++) y[at] = x[at] * inverse * weight[at];
  *scale = inverse;
}

// The gradient of x: inverse · (w·g − x̂ · mean(w·g·x̂)), x̂ = x·inverse; and g·x̂ added to that of the weight.
PER_PROCESSOR void backRow(const float* x, const float* weight, const float* g, int64_t width, float inverse, float* ofX,
                           float* ofWeight) {
  const int64_t even = width / LANES * LANES;
  Floats products{};
  for (int64_t at = 0; at < even; at += LANES) products += load(x + at) * load(g + at) * load(weight + at);
  float sum = total(products);
  for (int64_t at = even; at < width; at++) sum += x[at] * g[at] * weight[at];
  const float mean = sum * inverse * inverse / static_cast<float>(width);
  for (int64_t at = 0; at < even; at += LANES) {
    const Floats values = load(x + at), incoming = load(g + at);
    store(ofX + at, inverse * (load(weight + at) * incoming - values * mean));
    store(ofWeight + at, load(ofWeight + at) + incoming * values * inverse);
  }
  for (int64_t at = even; at < width; at++) {
    ofX[at] = inverse * (weight[at] * g[at] - x[at] * mean);
    ofWeight[at] += g[at] * x[at] * inverse;
  }
}

bool isPlainFloat(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && tensor.is_cpu() && tensor.scalar_type() == at::kFloat;
}

}  // namespace

bool suitsRmsNorm(const at::Tensor& x, const at::Tensor& weight) {
  return isPlainFloat(x) && isPlainFloat(weight) && weight.dim() == 1 && x.dim() > 0 && x.size(-1) == weight.size(0) &&
         x.numel() > 0;
}

Normalised normalisedRows(const at::Tensor& input, const at::Tensor& weight, double eps) {
  const at::Tensor x = input.contiguous(), factors = weight.contiguous();
  const int64_t width = x.size(-1), rows = x.numel() / width;
  at::Tensor values = at::empty_like(x), scales = at::empty({rows}, x.options());
  const float *from = x.const_data_ptr<float>(), *by = factors.const_data_ptr<float>();
  float *to = values.mutable_data_ptr<float>(), *scale = scales.mutable_data_ptr<float>();
  // A few rows are done before a second thread has begun.
  parallelFor(rows, std::max<int64_t>(1, 16384 / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++)
      normaliseRow(from + row * width, by, width, static_cast<float>(eps), to + row * width, scale + row);
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
  at::Tensor ofWeight = at::zeros({(rows + part - 1) / part, width}, x.options());
  const float *from = x.const_data_ptr<float>(), *by = factors.const_data_ptr<float>();
  const float *g = gradient.const_data_ptr<float>(), *scale = scales.const_data_ptr<float>();
  float *to = ofX.mutable_data_ptr<float>(), *added = ofWeight.mutable_data_ptr<float>();
  parallelFor(rows, part, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++)
      backRow(from + row * width, by, g + row * width, width, scale[row], to + row * width, added + row / part * width);
  });
  return {ofX, ofWeight.sum(0)};
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
      const at::Tensor inverse = (x.square().mean(-1, true) + context->saved_data["eps"].toDouble()).rsqrt();
      const at::Tensor normal = x * inverse, product = gradients[0] * weight;
      const at::Tensor ofX = inverse * (product - normal * (product * normal).mean(-1, true));
      return {ofX, (gradients[0] * normal).reshape({-1, x.size(-1)}).sum(0), {}};
    }
    const NormGradients found = normGradients(x, weight, scales, gradients[0]);
    return {found.ofX, found.ofWeight, {}};
  }
};

}  // namespace

// rms_norm(x [..., D], weight [D], eps) → x / √(mean(x²) + eps) · weight
at::Tensor rmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!suitsRmsNorm(x, weight)) return at::rms_norm(x, {x.size(-1)}, weight, eps);
  return FusedRmsNorm::apply(x, weight, eps);
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
    const at::Tensor values = normalisedRows(x, norm, eps).values;
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
    const at::Tensor rows = normalised.values.reshape({-1, x.size(-1)});
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
        else ofValues = part;
      }
      if (context->needs_input_grad(2 + index)) found[2 + index] = gradient.t().mm(rows);
      if (biases > 0 && context->needs_input_grad(2 + count + index)) found[2 + count + index] = gradient.sum(0);
    }
    if (!ofValues.defined()) return found;
    const NormGradients ofNorm = normGradients(x, norm, normalised.scales, ofValues);
    found[0] = ofNorm.ofX;
    found[1] = ofNorm.ofWeight;
    return found;
  }
};

// norm_linears(x [..., D], norm [D], eps, weights [I, D] …, biases [I] … or none) → rms_norm(x, norm, eps) · weightᵀ + bias, each.
// Keeps x for its backward pass, and not what was normalised.
std::vector<at::Tensor> normLinears(const at::Tensor& x, const at::Tensor& norm, double eps, at::TensorList weights,
                                    at::TensorList biases) {
  TORCH_CHECK(!weights.empty() && (biases.empty() || biases.size() == weights.size()),
              "expected weights, and a bias for each or none, received ", weights.size(), " and ", biases.size());
  bool isPlain = suitsRmsNorm(x, norm) && !at::autocast::is_autocast_enabled(at::kCPU);
  for (const at::Tensor& weight : weights) isPlain &= isPlainFloat(weight) && weight.dim() == 2;
  for (const at::Tensor& bias : biases) isPlain &= isPlainFloat(bias);
  if (isPlain) return NormLinears::apply(x, norm, weights, biases, eps);
  const at::Tensor values = rmsNorm(x, norm, eps);
  std::vector<at::Tensor> outputs;
  for (size_t index = 0; index < weights.size(); index++)
    outputs.push_back(linearLayer(values, weights[index], biases.empty() ? std::nullopt : std::optional(biases[index])));
  return outputs;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("rms_norm(Tensor input, Tensor weight, float eps) -> Tensor", &rmsNorm);
  library.def("norm_linears(Tensor input, Tensor norm, float eps, Tensor[] weights, Tensor[] biases) -> Tensor[]", &normLinears);
}

}  // namespace posttrain
