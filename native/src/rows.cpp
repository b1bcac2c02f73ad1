// Kernels for a few rows of tokens, where libtorch's operators leave the memory idle: a product of one row with a matrix
// reads each weight once, and what counts is to read at the speed of the memory.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include "napi.h"
#include "parallel.h"
#include "vectors.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace posttrain {
namespace {

// Four rows of the weight at a time: one read of x serves all of them.
template <typename Weight>
INLINE void dotRows(const float* x, const Weight* weight, int64_t width, int64_t rows, float* result) {
  const int64_t even = width / (2 * LANES) * (2 * LANES);
  for (int64_t row = 0; row < rows; row += 4) {
    // At the end some rows are computed twice.
    const Weight* const w0 = weight + row * width;
    const Weight* const w1 = row + 1 < rows ? w0 + width : w0;
    const Weight* const w2 = row + 2 < rows ? w1 + width : w1;
    const Weight* const w3 = row + 3 < rows ? w2 + width : w2;
    Floats a0{}, b0{}, a1{}, b1{}, a2{}, b2{}, a3{}, b3{};
    for (int64_t at = 0; at < even; at += 2 * LANES) {
      const Floats first = load(x + at), second = load(x + at + LANES);
      a0 += first * load(w0 + at);
      b0 += second * load(w0 + at + LANES);
      a1 += first * load(w1 + at);
      b1 += second * load(w1 + at + LANES);
      a2 += first * load(w2 + at);
      b2 += second * load(w2 + at + LANES);
      a3 += first * load(w3 + at);
      b3 += second * load(w3 + at + LANES);
    }
    const Four found = sums(a0 + b0, a1 + b1, a2 + b2, a3 + b3);
    float totals[4] = {found[0], found[1], found[2], found[3]};
    const Weight* const all[4] = {w0, w1, w2, w3};
    for (int64_t i = 0; i < 4 && row + i < rows; i++) {
      for (int64_t at = even; at < width; at++) totals[i] += x[at] * static_cast<float>(all[i][at]);
      result[row + i] = totals[i];
    }
  }
}

PER_PROCESSOR void dotFloats(const float* x, const float* weight, int64_t width, int64_t rows, float* result) {
  dotRows(x, weight, width, rows, result);
}

PER_PROCESSOR void dotHalves(const float* x, const c10::BFloat16* weight, int64_t width, int64_t rows, float* result) {
  dotRows(x, weight, width, rows, result);
}

#if defined(__x86_64__) && defined(__GNUC__)
// The same where the processor multiplies numbers of bfloat16 in pairs: a quarter of the instructions, without which one
// row's product waits for them and not for the memory.
#define WITH_PAIRS __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

WITH_PAIRS INLINE __m512bh pairs(const c10::BFloat16* from) { return (__m512bh)_mm512_loadu_si512(from); }

WITH_PAIRS void dotHalvesInPairs(
    const c10::BFloat16* x, const c10::BFloat16* weight, int64_t width, int64_t rows, float* result) {
  constexpr int64_t STEP = 2 * LANES;
  const int64_t even = width / STEP * STEP;
  for (int64_t row = 0; row < rows; row += 4) {
    // At the end some rows are computed twice.
    const c10::BFloat16* all[4];
    for (int64_t i = 0; i < 4; i++) all[i] = weight + std::min(row + i, rows - 1) * width;
    __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
    for (int64_t at = 0; at < even; at += STEP) {
      const __m512bh values = pairs(x + at);
      a = _mm512_dpbf16_ps(a, values, pairs(all[0] + at));
      b = _mm512_dpbf16_ps(b, values, pairs(all[1] + at));
      c = _mm512_dpbf16_ps(c, values, pairs(all[2] + at));
      d = _mm512_dpbf16_ps(d, values, pairs(all[3] + at));
    }
    const Four found = sums((Floats)a, (Floats)b, (Floats)c, (Floats)d);
    float totals[4] = {found[0], found[1], found[2], found[3]};
    for (int64_t i = 0; i < 4 && row + i < rows; i++) {
      for (int64_t at = even; at < width; at++) totals[i] += static_cast<float>(x[at]) * static_cast<float>(all[i][at]);
      result[row + i] = totals[i];
    }
  }
}

bool multipliesPairs() {
  static const bool answer = __builtin_cpu_supports("avx512bf16");
  return answer;
}
#else
void dotHalvesInPairs(const c10::BFloat16*, const c10::BFloat16*, int64_t, int64_t, float*) {}
bool multipliesPairs() { return false; }
#endif

// x [M, in], weight [out, in] → [M, out]
template <typename Number>
void multiplyRows(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, at::Tensor& y) {
  const int64_t rows = x.size(0), width = x.size(1), outputs = weight.size(0);
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  const float* const from = wide.const_data_ptr<float>();
  const Number* const weights = weight.const_data_ptr<Number>();
  const Number* const offset = bias.has_value() ? bias->const_data_ptr<Number>() : nullptr;
  Number* const to = y.mutable_data_ptr<Number>();
  const at::Tensor narrow = x.contiguous();
  const bool inPairs = std::is_same_v<Number, c10::BFloat16> && multipliesPairs();
  parallelFor(outputs, 32, [&](int64_t begin, int64_t end) {
    float found[32];
    for (int64_t first = begin; first < end; first += 32) {
      const int64_t count = std::min<int64_t>(32, end - first);
      for (int64_t row = 0; row < rows; row++) {
        if constexpr (std::is_same_v<Number, float>) dotFloats(from + row * width, weights + first * width, width, count, found);
        else if (inPairs)
          dotHalvesInPairs(narrow.const_data_ptr<Number>() + row * width, weights + first * width, width, count, found);
        else dotHalves(from + row * width, weights + first * width, width, count, found);
        for (int64_t i = 0; i < count; i++) {
          const float added = offset ? static_cast<float>(offset[first + i]) : 0;
          to[row * outputs + first + i] = static_cast<Number>(found[i] + added);
        }
      }
    }
  });
}

bool isPlain(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.layout() == at::kStrided && tensor.is_cpu() && tensor.scalar_type() == dtype && tensor.is_contiguous();
}

// A result without a gradient where one is asked for would be wrong in silence.
void refuseGradient(const char* name, std::initializer_list<std::reference_wrapper<const at::Tensor>> tensors) {
  if (!at::GradMode::is_enabled()) return;
  for (const at::Tensor& tensor : tensors)
    TORCH_CHECK(!tensor.requires_grad(), name, " has no gradient: expected tensors that require none, or noGrad");
}

// few_rows_linear(x [M, in], weight [out, in], bias) → x · weightᵀ + bias. Has no gradient.
at::Tensor fewRowsLinear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const at::ScalarType dtype = weight.scalar_type();
  const bool isKnown = (dtype == at::kFloat || dtype == at::kBFloat16) && x.dim() == 2 && weight.dim() == 2 &&
                       x.scalar_type() == dtype && x.is_cpu() && isPlain(weight, dtype) && x.size(1) == weight.size(1) &&
                       (!bias.has_value() || (isPlain(*bias, dtype) && bias->numel() == weight.size(0)));
  if (!isKnown) return at::linear(x, weight, bias);
  refuseGradient("few_rows_linear", {x, weight});
  at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
  if (dtype == at::kFloat) multiplyRows<float>(x, weight, bias, y);
  else multiplyRows<c10::BFloat16>(x, weight, bias, y);
  return y;
}

// Keys and values of one row and one head: so many columns, each `width` numbers that lie together.
template <typename Number>
struct Cached {
  const Number *keys, *values;
  int64_t keyStep, valueStep, columns, width;
};

// scores[j] = x · keys[j]
template <typename Number>
INLINE void scoreKeys(const float* x, const Cached<Number>& cached, float* scores) {
  const int64_t even = cached.width / LANES * LANES;
  for (int64_t column = 0; column < cached.columns; column += 4) {
    // At the end some columns are computed twice.
    const Number* keys[4];
    for (int64_t i = 0; i < 4; i++) keys[i] = cached.keys + std::min(column + i, cached.columns - 1) * cached.keyStep;
    Floats a{}, b{}, c{}, d{};
    for (int64_t at = 0; at < even; at += LANES) {
      const Floats values = load(x + at);
      a += values * load(keys[0] + at);
      b += values * load(keys[1] + at);
      c += values * load(keys[2] + at);
      d += values * load(keys[3] + at);
    }
    const Four found = sums(a, b, c, d);
    for (int64_t i = 0; i < 4 && column + i < cached.columns; i++) {
      float total = found[i];
      for (int64_t at = even; at < cached.width; at++) total += x[at] * static_cast<float>(keys[i][at]);
      scores[column + i] = total;
    }
  }
}

// to = Σ_j weights[j] · values[j]
template <typename Number>
INLINE void mixValues(const float* weights, const Cached<Number>& cached, float* to) {
  int64_t at = 0;
  for (; at + 4 * LANES <= cached.width; at += 4 * LANES) {
    Floats a{}, b{}, c{}, d{};
    for (int64_t column = 0; column < cached.columns; column++) {
      const Number* const from = cached.values + column * cached.valueStep + at;
      const float weight = weights[column];
      a += weight * load(from);
      b += weight * load(from + LANES);
      c += weight * load(from + 2 * LANES);
      d += weight * load(from + 3 * LANES);
    }
    store(to + at, a);
    store(to + at + LANES, b);
    store(to + at + 2 * LANES, c);
    store(to + at + 3 * LANES, d);
  }
  for (; at + LANES <= cached.width; at += LANES) {
    Floats sum{};
    for (int64_t column = 0; column < cached.columns; column++)
      sum += weights[column] * load(cached.values + column * cached.valueStep + at);
    store(to + at, sum);
  }
  for (; at < cached.width; at++) {
    float sum = 0;
    for (int64_t column = 0; column < cached.columns; column++)
      sum += weights[column] * static_cast<float>(cached.values[column * cached.valueStep + at]);
    to[at] = sum;
  }
}

PER_PROCESSOR void scoreFloats(const float* x, const Cached<float>& cached, float* scores) { scoreKeys(x, cached, scores); }
PER_PROCESSOR void scoreHalves(const float* x, const Cached<c10::BFloat16>& cached, float* scores) { scoreKeys(x, cached, scores); }
PER_PROCESSOR void mixFloats(const float* weights, const Cached<float>& cached, float* to) { mixValues(weights, cached, to); }
PER_PROCESSOR void mixHalves(const float* weights, const Cached<c10::BFloat16>& cached, float* to) { mixValues(weights, cached, to); }

struct Scoring {
  float scale, softcap;  // no cap where it is 0
};

void toProbabilities(float* scores, int64_t columns, const float* mask, Scoring scoring) {
  float largest = -INFINITY;
  for (int64_t column = 0; column < columns; column++) {
    float score = scores[column] * scoring.scale;
    if (scoring.softcap != 0) score = scoring.softcap * std::tanh(score / scoring.softcap);
    if (mask != nullptr) score += mask[column];
    scores[column] = score;
    largest = std::max(largest, score);
  }
  float total = 0;
  for (int64_t column = 0; column < columns; column++) total += scores[column] = std::exp(scores[column] - largest);
  for (int64_t column = 0; column < columns; column++) scores[column] /= total;
}

template <typename Number>
at::Tensor attend(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& mask, Scoring scoring) {
  const int64_t rows = keys.size(0), kvHeads = keys.size(1), columns = keys.size(2), width = keys.size(3);
  const int64_t heads = query.size(1), group = heads / kvHeads;
  // Rounded to the cache's dtype, as products of it are.
  const at::Tensor wide = query.to(keys.scalar_type()).to(at::kFloat).contiguous();
  at::Tensor result = at::empty({rows, heads * width}, keys.options());
  const float* const from = wide.const_data_ptr<float>();
  const Number *const key = keys.const_data_ptr<Number>(), *const value = values.const_data_ptr<Number>();
  const float* const hidden = mask.defined() ? mask.const_data_ptr<float>() : nullptr;
  Number* const to = result.mutable_data_ptr<Number>();
  // Less than that is done before a second thread has begun.
  const int64_t grain = std::max<int64_t>(1, 8192 / (group * columns * width));
  parallelFor(rows * kvHeads, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(columns), mixed(width);
    for (int64_t at = begin; at < end; at++) {
      const int64_t row = at / kvHeads, head = at % kvHeads;
      const Cached<Number> cached{key + row * keys.stride(0) + head * keys.stride(1),
                                  value + row * values.stride(0) + head * values.stride(1),
                                  keys.stride(2),
                                  values.stride(2),
                                  columns,
                                  width};
      for (int64_t i = 0; i < group; i++) {
        const int64_t place = (row * heads + head * group + i) * width;
        if constexpr (std::is_same_v<Number, float>) scoreFloats(from + place, cached, scores.data());
        else scoreHalves(from + place, cached, scores.data());
        toProbabilities(scores.data(), columns, hidden ? hidden + row * mask.stride(0) : nullptr, scoring);
        if constexpr (std::is_same_v<Number, float>) mixFloats(scores.data(), cached, mixed.data());
        else mixHalves(scores.data(), cached, mixed.data());
        for (int64_t j = 0; j < width; j++) to[place + j] = static_cast<Number>(mixed[j]);
      }
    }
  });
  return result;
}

// attend_rows(query [B, H, D], keys and values [B, Hkv, L, D], mask [B, L] float32 added to the scores, scale, softcap)
// → [B, H·D], the dtype of keys. Not recorded by autograd.
at::Tensor attendRows(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values,
                      const std::optional<at::Tensor>& mask, double scale, double softcap) {
  const at::ScalarType dtype = keys.scalar_type();
  refuseGradient("attend_rows", {query, keys, values});
  TORCH_CHECK(query.dim() == 3 && keys.dim() == 4 && keys.sizes() == values.sizes() && query.size(0) == keys.size(0) &&
                  query.size(2) == keys.size(3) && keys.size(1) > 0 && query.size(1) % keys.size(1) == 0 && keys.size(2) > 0,
              "expected query [B, H, D], keys and values [B, Hkv, L, D], received ", query.sizes(), ", ", keys.sizes(), " and ",
              values.sizes());
  TORCH_CHECK(keys.is_cpu() && query.is_cpu() && values.is_cpu() && values.scalar_type() == dtype &&
                  (dtype == at::kFloat || dtype == at::kBFloat16) && keys.stride(3) == 1 && values.stride(3) == 1,
              "expected keys and values of float32 or bfloat16 on the CPU, whose last dimension is contiguous");
  at::Tensor added;
  if (mask.has_value()) {
    TORCH_CHECK(mask->sizes() == at::IntArrayRef({keys.size(0), keys.size(2)}) && mask->scalar_type() == at::kFloat && mask->is_cpu(),
                "expected a float32 mask [B, L]");
    added = mask->stride(1) == 1 ? *mask : mask->contiguous();
  }
  const Scoring scoring{static_cast<float>(scale), static_cast<float>(softcap)};
  return dtype == at::kFloat ? attend<float>(query, keys, values, added, scoring)
                             : attend<c10::BFloat16>(query, keys, values, added, scoring);
}

}  // namespace

bool processorMultipliesPairs() { return multipliesPairs(); }

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("few_rows_linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor", &fewRowsLinear);
  library.def(
      "attend_rows(Tensor query, Tensor keys, Tensor values, Tensor? mask, float scale, float softcap) -> Tensor",
      &attendRows);
}

}  // namespace posttrain
