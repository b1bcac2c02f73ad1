// Root-mean-square normalisation in one pass over the data; libtorch's is made of six operators on the CPU.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>

#include "napi.h"
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

struct FusedRmsNorm : torch::autograd::Function<FusedRmsNorm> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input, const at::Tensor& weight,
                            double eps) {
    const at::Tensor x = input.contiguous();
    const int64_t width = x.size(-1), rows = x.numel() / width;
    at::Tensor y = at::empty_like(x), scales = at::empty({rows}, x.options());
    const at::Tensor factors = weight.contiguous();
    const float *from = x.const_data_ptr<float>(), *by = factors.const_data_ptr<float>();
    float *to = y.mutable_data_ptr<float>(), *scale = scales.mutable_data_ptr<float>();
    // A few rows are done before a second thread has begun.
    parallelFor(rows, std::max<int64_t>(1, 16384 / width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++)
        normaliseRow(from + row * width, by, width, static_cast<float>(eps), to + row * width, scale + row);
    });
    // Not the contiguous copy, which has no gradient.
    context->save_for_backward({input, weight, scales});
    context->saved_data["eps"] = eps;
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1], &scales = saved[2];
    if (!gradients[0].defined()) return {{}, {}, {}};
    const int64_t width = input.size(-1), rows = input.numel() / width;
    // With operators that have gradients themselves.
    if (at::GradMode::is_enabled()) {
      const at::Tensor inverse = (input.square().mean(-1, true) + context->saved_data["eps"].toDouble()).rsqrt();
      const at::Tensor normal = input * inverse, product = gradients[0] * weight;
      const at::Tensor ofX = inverse * (product - normal * (product * normal).mean(-1, true));
      return {ofX, (gradients[0] * normal).reshape({rows, width}).sum(0), {}};
    }
    const at::Tensor x = input.contiguous(), gradient = gradients[0].contiguous(), factors = weight.contiguous();
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
    return {ofX, ofWeight.sum(0), {}};
  }
};

// rms_norm(x [..., D], weight [D], eps) → x / √(mean(x²) + eps) · weight
at::Tensor rmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const bool isKnown = isPlainFloat(x) && isPlainFloat(weight) && weight.dim() == 1 && x.dim() > 0 &&
                       x.size(-1) == weight.size(0) && x.numel() > 0;
  if (!isKnown) return at::rms_norm(x, {x.size(-1)}, weight, eps);
  return FusedRmsNorm::apply(x, weight, eps);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("rms_norm(Tensor input, Tensor weight, float eps) -> Tensor", &rmsNorm);
}

}  // namespace posttrain
