// One token per row of logits, drawn by inverting the cumulative distribution: a pass for the largest logit and one for the
// sum, where libtorch's operators make six passes and two matrices of the logits' size, one of them in float64.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <vector>

#include "parallel.h"
#include "vectors.h"

namespace posttrain {
namespace {

constexpr int64_t BLOCK = 16 * LANES;
typedef double Doubles __attribute__((vector_size(32)));

// Adds sixteen numbers to as many sums, four by four.
INLINE void addTo(Doubles (&sums)[4], Floats values) {
  for (int64_t half = 0; half < 2; half++) {
    Four quarters[2];
    std::memcpy(quarters, half == 0 ? &values.low : &values.high, sizeof quarters);
    for (int64_t i = 0; i < 2; i++) sums[2 * half + i] += __builtin_convertvector(quarters[i], Doubles);
  }
}

// Logits over the temperature. Those that are missing at the end have no probability.
template <typename Number>
INLINE Floats scoresAt(const Number* logits, int64_t at, int64_t count, float temperature) {
  if (at + LANES <= count) return temperature == 1 ? load(logits + at) : load(logits + at) / temperature;
  float rest[LANES];
  for (int64_t i = 0; i < LANES; i++) rest[i] = at + i < count ? static_cast<float>(logits[at + i]) / temperature : -INFINITY;
  return load(rest);
}

template <typename Number>
INLINE float largestScore(const Number* logits, int64_t count, float temperature) {
  Floats most = filled(-INFINITY);
  for (int64_t at = 0; at < count; at += LANES) {
    most = larger(scoresAt(logits, at, count, temperature), most);
  }
  return largestOf(most);
}

struct Drawn {
  int64_t id;
  double logprob;
};

// The first token whose cumulative probability exceeds `uniform`. Sums are float64: over a large vocabulary the sum of
// float32 probabilities would lose the tail.
template <typename Number>
INLINE Drawn drawOne(const Number* logits, int64_t count, double uniform, float temperature, double* blocks) {
  const float largest = largestScore(logits, count, temperature);
  const int64_t numBlocks = (count + BLOCK - 1) / BLOCK;
  double total = 0;
  for (int64_t block = 0; block < numBlocks; block++) {
    Doubles sums[4]{};
    for (int64_t at = block * BLOCK; at < std::min(count, (block + 1) * BLOCK); at += LANES)
      addTo(sums, exponential(scoresAt(logits, at, count, temperature) - largest));
    double sum = 0;
    for (int64_t i = 0; i < LANES; i++) sum += sums[i / 4][i % 4];
    blocks[block] = sum;
    total += sum;
  }
  // Strictly below the total, so that a token without probability at the end is never reached by rounding.
  const double point = std::min(uniform * total, total * (1 - 1e-15));
  int64_t block = 0;
  double before = 0;
  while (block + 1 < numBlocks && before + blocks[block] <= point) before += blocks[block++];
  int64_t id = block * BLOCK, last = id;
  for (bool isFound = false; !isFound && id < std::min(count, (block + 1) * BLOCK);) {
    float values[LANES];
    store(values, exponential(scoresAt(logits, id, count, temperature) - largest));
    for (int64_t i = 0; i < LANES && id < count; i++, id++) {
      if (values[i] > 0) last = id;
      before += values[i];
      if (before > point) {
        isFound = true;
        break;
      }
    }
  }
  // Within a block the sum is taken in another order: by rounding the point may lie just beyond its end.
  const int64_t found = id < std::min(count, (block + 1) * BLOCK) ? id : last;
  return {found, static_cast<double>(static_cast<float>(logits[found]) / temperature - largest) - std::log(total)};
}

template <typename Number>
INLINE Drawn largestOne(const Number* logits, int64_t count) {
  const float largest = largestScore(logits, count, 1);
  int64_t id = 0;
  while (id + 1 < count && !(static_cast<float>(logits[id]) == largest)) id++;
  double total = 0;
  for (int64_t at = 0; at < count; at += LANES) total += sumOf(exponential(scoresAt(logits, at, count, 1) - largest));
  return {id, static_cast<double>(static_cast<float>(logits[id]) - largest) - std::log(total)};
}

PER_PROCESSOR Drawn drawRow(const float* logits, int64_t count, double uniform, float temperature, double* blocks) {
  return temperature == 0 ? largestOne(logits, count) : drawOne(logits, count, uniform, temperature, blocks);
}
PER_PROCESSOR Drawn drawRow(const c10::BFloat16* logits, int64_t count, double uniform, float temperature, double* blocks) {
  return temperature == 0 ? largestOne(logits, count) : drawOne(logits, count, uniform, temperature, blocks);
}

template <typename Number>
void drawAll(const at::Tensor& logits, const double* points, float temperature, double* to) {
  const int64_t rows = logits.size(0), count = logits.size(1);
  const Number* const from = logits.const_data_ptr<Number>();
  parallelFor(rows, std::max<int64_t>(1, 8192 / count), [&](int64_t begin, int64_t end) {
    std::vector<double> blocks((count + BLOCK - 1) / BLOCK);
    for (int64_t row = begin; row < end; row++) {
      const Drawn drawn = drawRow(from + row * count, count, points[row], temperature, blocks.data());
      to[row] = static_cast<double>(drawn.id);
      to[rows + row] = drawn.logprob;
    }
  });
}

// draw_rows(logits [B, V] float32 or bfloat16, uniforms [B] float64, temperature) → [2, B] float64: the ids, and the natural log of the
// probability of each under softmax(logits / temperature). Temperature 0 takes the first of the largest logits, and its
// log-probability under softmax(logits). A row with NaN or +∞ has log-probability NaN. Has no gradient.
at::Tensor drawRows(const at::Tensor& logits, const at::Tensor& uniforms, double temperature) {
  const bool isFloat = logits.scalar_type() == at::kFloat;
  TORCH_CHECK(logits.dim() == 2 && logits.is_cpu() && (isFloat || logits.scalar_type() == at::kBFloat16) && logits.numel() > 0,
              "expected logits [B, V] of float32 or bfloat16 on the CPU, received ", logits.sizes(), " of ", logits.scalar_type());
  TORCH_CHECK(uniforms.sizes() == at::IntArrayRef({logits.size(0)}) && uniforms.is_cpu() && uniforms.scalar_type() == at::kDouble,
              "expected a float64 number per row, received ", uniforms.sizes());
  TORCH_CHECK(!logits.requires_grad() || !at::GradMode::is_enabled(), "draw_rows has no gradient: expected noGrad");
  TORCH_CHECK(temperature >= 0, "expected a temperature of 0 or more, received ", temperature);
  const at::Tensor all = logits.contiguous(), points = uniforms.contiguous();
  at::Tensor result = at::empty({2, logits.size(0)}, points.options());
  const double* const from = points.const_data_ptr<double>();
  double* const to = result.mutable_data_ptr<double>();
  if (isFloat) drawAll<float>(all, from, static_cast<float>(temperature), to);
  else drawAll<c10::BFloat16>(all, from, static_cast<float>(temperature), to);
  return result;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("draw_rows(Tensor logits, Tensor uniforms, float temperature) -> Tensor", &drawRows);
}

}  // namespace posttrain
