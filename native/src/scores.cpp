// Log-probabilities of tokens and entropies of their distributions from logits, and the gradient of both, written into the
// place of the logits: one pass over the [tokens, V] matrix forward and one backward, and no second matrix of that size.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "parallel.h"
#include "vectors.h"

namespace posttrain {
namespace {

// Numbers that one thread should have at least.
constexpr int64_t GRAIN = 16384;
// A log-probability below it has probability 0, by which it is multiplied: −∞ would give NaN.
constexpr float LOWEST = -100;

INLINE double total(Floats value) {
  float lanes[LANES];
  store(lanes, value);
  double sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

INLINE Floats atLeast(Floats value, float bound) {
  const Floats bounds = Floats{} + bound;
  return value < bounds ? bounds : value;
}

struct RowSums {
  float maximum;
  double sum, weighted;  // Σ e^(z − maximum), and the same times z − maximum
};

// z = logits / temperature. NaN among them makes the sums NaN.
template <bool withEntropy>
INLINE RowSums sumRow(const float* logits, int64_t width, float temperature) {
  const int64_t even = width / (4 * LANES) * (4 * LANES);
  Floats most[4];
  for (Floats& lanes : most) lanes = Floats{} - INFINITY;
  for (int64_t at = 0; at < even; at += 4 * LANES)
    for (int64_t i = 0; i < 4; i++) {
      const Floats value = load(logits + at + i * LANES);
      most[i] = value > most[i] ? value : most[i];
    }
  float maximum = std::max(std::max(largestOf(most[0]), largestOf(most[1])), std::max(largestOf(most[2]), largestOf(most[3])));
  for (int64_t at = even; at < width; at++) maximum = std::max(maximum, logits[at]);
  maximum /= temperature;
  Floats sums[4]{}, weighted[4]{};
  for (int64_t at = 0; at < even; at += 4 * LANES)
    for (int64_t i = 0; i < 4; i++) {
      const Floats below = load(logits + at + i * LANES) / temperature - maximum, power = exponential(below);
      sums[i] += power;
      if constexpr (withEntropy) weighted[i] += power * atLeast(below, LOWEST);
    }
  RowSums row{maximum, 0, 0};
  for (int64_t i = 0; i < 4; i++) {
    row.sum += total(sums[i]);
    row.weighted += total(weighted[i]);
  }
  for (int64_t at = even; at < width; at++) {
    const float below = logits[at] / temperature - maximum, power = exponential(below);
    row.sum += power;
    if constexpr (withEntropy) row.weighted += power * (below < LOWEST ? LOWEST : below);
  }
  return row;
}

PER_PROCESSOR RowSums plainSums(const float* logits, int64_t width, float temperature) { return sumRow<false>(logits, width, temperature); }
PER_PROCESSOR RowSums entropySums(const float* logits, int64_t width, float temperature) { return sumRow<true>(logits, width, temperature); }

// What the gradient of one row is made of.
struct RowFactors {
  float temperature, normalizer, entropy, ofLogprob, ofEntropy;
};

// logits → −p · (ofLogprob + ofEntropy · (log p + H)) / temperature; what is left to add stands at the target.
template <bool withEntropy>
INLINE void gradientRow(float* logits, int64_t width, RowFactors row) {
  const int64_t even = width / LANES * LANES;
  const float factor = -row.ofLogprob / row.temperature, slope = -row.ofEntropy / row.temperature;
  for (int64_t at = 0; at < even; at += LANES) {
    const Floats logprobs = load(logits + at) / row.temperature - row.normalizer, probabilities = exponential(logprobs);
    if constexpr (withEntropy)
      store(logits + at, probabilities * (factor + slope * (atLeast(logprobs, LOWEST) + row.entropy)));
    else store(logits + at, probabilities * factor);
  }
  for (int64_t at = even; at < width; at++) {
    const float logprob = logits[at] / row.temperature - row.normalizer, probability = exponential(logprob);
    const float bounded = logprob < LOWEST ? LOWEST : logprob;
    logits[at] = probability * (withEntropy ? factor + slope * (bounded + row.entropy) : factor);
  }
}

PER_PROCESSOR void plainGradient(float* logits, int64_t width, RowFactors row) { gradientRow<false>(logits, width, row); }
PER_PROCESSOR void entropyGradient(float* logits, int64_t width, RowFactors row) { gradientRow<true>(logits, width, row); }

bool isKnown(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous();
}

void checkInput(const at::Tensor& logits, const at::Tensor& targets, double temperature) {
  TORCH_CHECK(logits.dim() == 2 && logits.size(1) > 0 && targets.dim() == 1 && targets.size(0) == logits.size(0) &&
                  targets.scalar_type() == at::kLong,
              "expected logits [N, V] and targets [N] of int64, received ", logits.sizes(), " and ", targets.sizes());
  TORCH_CHECK(temperature > 0, "expected a temperature above 0, received ", temperature);
  TORCH_CHECK(!at::GradMode::is_enabled() || !logits.requires_grad(), "has no gradient: expected logits that require none, or noGrad");
}

// In place of a read beyond the row.
at::Tensor checkedTargets(const at::Tensor& targets, int64_t width) {
  const at::Tensor own = targets.contiguous();
  const int64_t* const ids = own.const_data_ptr<int64_t>();
  const int64_t count = own.numel();
  const bool fits = std::all_of(ids, ids + count, [&](int64_t id) { return id >= 0 && id < width; });
  TORCH_CHECK(fits, "expected targets from 0 to ", width - 1);
  return own;
}

using Scores = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

Scores plainScores(const at::Tensor& logits, const at::Tensor& targets, double temperature, bool withEntropy) {
  const at::Tensor scaled = temperature == 1 ? logits : logits / temperature;
  const at::Tensor normalizers = scaled.logsumexp(1);
  const at::Tensor logprobs = scaled.gather(1, targets.unsqueeze(1)).squeeze(1) - normalizers;
  if (!withEntropy) return {logprobs, at::empty({0}, logits.options()), normalizers};
  const at::Tensor all = scaled - normalizers.unsqueeze(1);
  return {logprobs, (all.exp() * all.clamp_min(-1e4)).sum(1).neg(), normalizers};
}

// score_tokens(logits [N, V], targets [N], temperature, withEntropy) → log-probabilities [N], entropies [N] (none unless
// asked for) and log Σ e^z [N], z = logits / temperature
Scores scoreTokens(const at::Tensor& logits, const at::Tensor& targets, double temperature, bool withEntropy) {
  checkInput(logits, targets, temperature);
  if (!isKnown(logits)) return plainScores(logits, targets, temperature, withEntropy);
  const int64_t rows = logits.size(0), width = logits.size(1);
  const at::Tensor ids = checkedTargets(targets, width);
  at::Tensor logprobs = at::empty({rows}, logits.options()), normalizers = at::empty({rows}, logits.options());
  at::Tensor entropies = at::empty({withEntropy ? rows : 0}, logits.options());
  const float* const from = logits.const_data_ptr<float>();
  const int64_t* const target = ids.const_data_ptr<int64_t>();
  float *const logprob = logprobs.mutable_data_ptr<float>(), *const normalizer = normalizers.mutable_data_ptr<float>();
  float* const entropy = entropies.mutable_data_ptr<float>();
  const float divisor = static_cast<float>(temperature);
  parallelFor(rows, std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const float* const own = from + row * width;
      const RowSums sums = withEntropy ? entropySums(own, width, divisor) : plainSums(own, width, divisor);
      const double log = std::log(sums.sum);
      normalizer[row] = static_cast<float>(sums.maximum + log);
      logprob[row] = static_cast<float>(static_cast<double>(own[target[row]] / divisor) - sums.maximum - log);
      // −Σ p·log p = log Σ − Σ e^(z − max)·(z − max) / Σ
      if (withEntropy) entropy[row] = static_cast<float>(log - sums.weighted / sums.sum);
    }
  });
  return {logprobs, entropies, normalizers};
}

at::Tensor floatsOr(const std::optional<at::Tensor>& tensor, const at::Tensor& like) {
  return tensor.has_value() ? tensor->contiguous() : at::zeros_like(like);
}

// score_gradient_(logits, targets, temperature, normalizers, entropies, ofLogprobs, ofEntropies): the gradient of Σ
// ofLogprobs·logprobs + ofEntropies·entropies takes the place of the logits. Either may be missing; entropies are needed with
// the second. Rows whose factors are 0 become 0, whatever stood there.
void scoreGradient(const at::Tensor& logits, const at::Tensor& targets, double temperature, const at::Tensor& normalizers,
                   const std::optional<at::Tensor>& entropies, const std::optional<at::Tensor>& ofLogprobs,
                   const std::optional<at::Tensor>& ofEntropies) {
  checkInput(logits, targets, temperature);
  const bool withEntropy = ofEntropies.has_value();
  // So that autograd refuses to use them where it had kept them.
  logits.unsafeGetTensorImpl()->bump_version();
  TORCH_CHECK(!withEntropy || entropies.has_value(), "expected entropies beside their gradient");
  for (const std::optional<at::Tensor>& each : {std::optional<at::Tensor>(normalizers), entropies, ofLogprobs, ofEntropies})
    TORCH_CHECK(!each.has_value() || (each->sizes() == targets.sizes() && each->scalar_type() == logits.scalar_type()),
                "expected normalizers, entropies and gradients [N] like targets, of the dtype of logits");
  const at::Tensor first = floatsOr(ofLogprobs, normalizers), second = floatsOr(ofEntropies, normalizers);
  if (!isKnown(logits)) {
    const at::Tensor all = (temperature == 1 ? logits : logits / temperature) - normalizers.unsqueeze(1);
    at::Tensor factors = first.unsqueeze(1).neg();
    if (withEntropy) factors = factors - second.unsqueeze(1) * (all.clamp_min(-1e4) + entropies->unsqueeze(1));
    const at::Tensor gradient = all.exp() * factors;
    gradient.scatter_add_(1, targets.unsqueeze(1), first.unsqueeze(1));
    logits.copy_(gradient.div_(temperature).masked_fill_(((first == 0) & (second == 0)).unsqueeze(1), 0));
    return;
  }
  const int64_t rows = logits.size(0), width = logits.size(1);
  const at::Tensor ids = checkedTargets(targets, width), own = normalizers.contiguous();
  const at::Tensor known = floatsOr(entropies, normalizers);
  float* const matrix = logits.mutable_data_ptr<float>();
  const int64_t* const target = ids.const_data_ptr<int64_t>();
  const float *const normalizer = own.const_data_ptr<float>(), *const entropy = known.const_data_ptr<float>();
  const float *const logprobFactor = first.const_data_ptr<float>(), *const entropyFactor = second.const_data_ptr<float>();
  const float divisor = static_cast<float>(temperature);
  parallelFor(rows, std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const RowFactors factors{divisor, normalizer[row], entropy[row], logprobFactor[row], entropyFactor[row]};
      float* const to = matrix + row * width;
      if (factors.ofLogprob == 0 && factors.ofEntropy == 0) {
        std::fill(to, to + width, 0.0F);
        continue;
      }
      if (factors.ofEntropy != 0) entropyGradient(to, width, factors);
      else plainGradient(to, width, factors);
      to[target[row]] += factors.ofLogprob / divisor;
    }
  });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def(
      "score_tokens(Tensor logits, Tensor targets, float temperature, bool with_entropy) -> (Tensor, Tensor, Tensor)",
      &scoreTokens);
  library.def(
      "score_gradient_(Tensor(a!) logits, Tensor targets, float temperature, Tensor normalizers, Tensor? entropies, "
      "Tensor? of_logprobs, Tensor? of_entropies) -> ()",
      &scoreGradient);
}

}  // namespace posttrain
