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

struct RowSums {
  float maximum;
  double sum, weighted;  // Σ e^(z − maximum), and the same times z − maximum
};

// z = logits / temperature. NaN among them makes the sums NaN.
template <bool withEntropy, typename Number>
INLINE RowSums sumRow(const Number* logits, int64_t width, float temperature) {
  const int64_t even = width / (4 * LANES) * (4 * LANES);
  Floats most[4];
  for (Floats& lanes : most) lanes = filled(-INFINITY);
  for (int64_t at = 0; at < even; at += 4 * LANES)
    for (int64_t i = 0; i < 4; i++)
      most[i] = larger(load(logits + at + i * LANES), most[i]);
  float maximum = std::max(std::max(largestOf(most[0]), largestOf(most[1])), std::max(largestOf(most[2]), largestOf(most[3])));
  for (int64_t at = even; at < width; at++) maximum = std::max(maximum, static_cast<float>(logits[at]));
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
    const float below = static_cast<float>(logits[at]) / temperature - maximum, power = exponential(below);
    row.sum += power;
    if constexpr (withEntropy) row.weighted += power * atLeast(below, LOWEST);
  }
  return row;
}

using Half = c10::BFloat16;
PER_PROCESSOR RowSums plainSums(const float* logits, int64_t width, float temperature) { return sumRow<false>(logits, width, temperature); }
PER_PROCESSOR RowSums plainSums(const Half* logits, int64_t width, float temperature) { return sumRow<false>(logits, width, temperature); }
PER_PROCESSOR RowSums entropySums(const float* logits, int64_t width, float temperature) { return sumRow<true>(logits, width, temperature); }
PER_PROCESSOR RowSums entropySums(const Half* logits, int64_t width, float temperature) { return sumRow<true>(logits, width, temperature); }

// What the gradient of one row is made of.
struct RowFactors {
  float temperature, normalizer, entropy, ofLogprob, ofEntropy;
};

// −p · (ofLogprob + ofEntropy · (log p + H)) / temperature of one logit.
template <bool withEntropy, typename Value>
INLINE Value gradientOf(Value logit, RowFactors row) {
  const float factor = -row.ofLogprob / row.temperature, slope = -row.ofEntropy / row.temperature;
  const Value logprob = logit / row.temperature - row.normalizer;
  if constexpr (withEntropy) return exponential(logprob) * (factor + slope * (atLeast(logprob, LOWEST) + row.entropy));
  else return exponential(logprob) * factor;
}

// The gradient in the place of the logits, with what the target has beside it.
template <bool withEntropy, typename Number>
INLINE void gradientRow(Number* logits, int64_t width, int64_t target, RowFactors row) {
  const Floats ofTarget = gradientOf<withEntropy>(filled(static_cast<float>(logits[target])), row);
  const int64_t even = width / LANES * LANES;
  for (int64_t at = 0; at < even; at += LANES) store(logits + at, gradientOf<withEntropy>(load(logits + at), row));
  for (int64_t at = even; at < width; at++)
    logits[at] = static_cast<Number>(gradientOf<withEntropy>(static_cast<float>(logits[at]), row));
  logits[target] = static_cast<Number>(ofTarget.low[0] + row.ofLogprob / row.temperature);
}

PER_PROCESSOR void plainGradient(float* logits, int64_t width, int64_t target, RowFactors row) {
  gradientRow<false>(logits, width, target, row);
}
PER_PROCESSOR void plainGradient(Half* logits, int64_t width, int64_t target, RowFactors row) {
  gradientRow<false>(logits, width, target, row);
}
PER_PROCESSOR void entropyGradient(float* logits, int64_t width, int64_t target, RowFactors row) {
  gradientRow<true>(logits, width, target, row);
}
PER_PROCESSOR void entropyGradient(Half* logits, int64_t width, int64_t target, RowFactors row) {
  gradientRow<true>(logits, width, target, row);
}

bool isKnown(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && tensor.is_cpu() && tensor.is_contiguous() &&
         (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16);
}

// Of what is computed from logits: float32 for narrower ones.
at::ScalarType scoreType(const at::Tensor& logits) {
  return at::isReducedFloatingType(logits.scalar_type()) ? at::kFloat : logits.scalar_type();
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

// z, in the dtype of the scores.
at::Tensor scaledLogits(const at::Tensor& logits, double temperature) {
  const at::Tensor wide = logits.to(scoreType(logits));
  return temperature == 1 ? wide : wide / temperature;
}

Scores plainScores(const at::Tensor& logits, const at::Tensor& targets, double temperature, bool withEntropy) {
  const at::Tensor scaled = scaledLogits(logits, temperature);
  const at::Tensor normalizers = scaled.logsumexp(1);
  const at::Tensor logprobs = scaled.gather(1, targets.unsqueeze(1)).squeeze(1) - normalizers;
  if (!withEntropy) return {logprobs, at::empty({0}, scaled.options()), normalizers};
  const at::Tensor all = scaled - normalizers.unsqueeze(1);
  return {logprobs, (all.exp() * all.clamp_min(-1e4)).sum(1).neg(), normalizers};
}

struct ScoresTo {
  float *logprobs, *entropies, *normalizers;
};

template <typename Number>
void scoreRows(const at::Tensor& logits, const int64_t* target, float temperature, bool withEntropy, ScoresTo to) {
  const int64_t rows = logits.size(0), width = logits.size(1);
  const Number* const from = logits.const_data_ptr<Number>();
  parallelFor(rows, std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const Number* const own = from + row * width;
      const RowSums sums = withEntropy ? entropySums(own, width, temperature) : plainSums(own, width, temperature);
      const double log = std::log(sums.sum);
      const float atTarget = static_cast<float>(own[target[row]]) / temperature;
      to.normalizers[row] = static_cast<float>(sums.maximum + log);
      to.logprobs[row] = static_cast<float>(static_cast<double>(atTarget) - sums.maximum - log);
      // −Σ p·log p = log Σ − Σ e^(z − max)·(z − max) / Σ
      if (withEntropy) to.entropies[row] = static_cast<float>(log - sums.weighted / sums.sum);
    }
  });
}

// score_tokens(logits [N, V], targets [N], temperature, withEntropy) → log-probabilities [N], entropies [N] (none unless
// asked for) and log Σ e^z [N], z = logits / temperature; in float32 of narrower logits
Scores scoreTokens(const at::Tensor& logits, const at::Tensor& targets, double temperature, bool withEntropy) {
  checkInput(logits, targets, temperature);
  if (!isKnown(logits)) return plainScores(logits, targets, temperature, withEntropy);
  const int64_t rows = logits.size(0);
  const at::Tensor ids = checkedTargets(targets, logits.size(1));
  const at::TensorOptions options = logits.options().dtype(at::kFloat);
  at::Tensor logprobs = at::empty({rows}, options), normalizers = at::empty({rows}, options);
  at::Tensor entropies = at::empty({withEntropy ? rows : 0}, options);
  const ScoresTo to{logprobs.mutable_data_ptr<float>(), entropies.mutable_data_ptr<float>(), normalizers.mutable_data_ptr<float>()};
  const auto score = logits.scalar_type() == at::kFloat ? &scoreRows<float> : &scoreRows<Half>;
  score(logits, ids.const_data_ptr<int64_t>(), static_cast<float>(temperature), withEntropy, to);
  return {logprobs, entropies, normalizers};
}

at::Tensor floatsOr(const std::optional<at::Tensor>& tensor, const at::Tensor& like) {
  return tensor.has_value() ? tensor->contiguous() : at::zeros_like(like);
}

struct GradientFrom {
  const int64_t* targets;
  const float *normalizers, *entropies, *ofLogprobs, *ofEntropies;
};

template <typename Number>
void differentiateRows(const at::Tensor& logits, float temperature, GradientFrom from) {
  const int64_t rows = logits.size(0), width = logits.size(1);
  Number* const matrix = logits.mutable_data_ptr<Number>();
  parallelFor(rows, std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const RowFactors factors{temperature, from.normalizers[row], from.entropies[row], from.ofLogprobs[row], from.ofEntropies[row]};
      Number* const to = matrix + row * width;
      if (factors.ofLogprob == 0 && factors.ofEntropy == 0) std::fill(to, to + width, Number(0));
      else if (factors.ofEntropy != 0) entropyGradient(to, width, from.targets[row], factors);
      else plainGradient(to, width, from.targets[row], factors);
    }
  });
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
    TORCH_CHECK(!each.has_value() || (each->sizes() == targets.sizes() && each->scalar_type() == scoreType(logits)),
                "expected normalizers, entropies and gradients [N] like targets, of the dtype of the scores");
  const at::Tensor first = floatsOr(ofLogprobs, normalizers), second = floatsOr(ofEntropies, normalizers);
  if (!isKnown(logits)) {
    const at::Tensor all = scaledLogits(logits, temperature) - normalizers.unsqueeze(1);
    at::Tensor factors = first.unsqueeze(1).neg();
    if (withEntropy) factors = factors - second.unsqueeze(1) * (all.clamp_min(-1e4) + entropies->unsqueeze(1));
    const at::Tensor gradient = all.exp() * factors;
    gradient.scatter_add_(1, targets.unsqueeze(1), first.unsqueeze(1));
    logits.copy_(gradient.div_(temperature).masked_fill_(((first == 0) & (second == 0)).unsqueeze(1), 0));
    return;
  }
  const at::Tensor ids = checkedTargets(targets, logits.size(1)), own = normalizers.contiguous();
  const at::Tensor known = floatsOr(entropies, normalizers);
  const GradientFrom from{ids.const_data_ptr<int64_t>(), own.const_data_ptr<float>(), known.const_data_ptr<float>(),
                          first.const_data_ptr<float>(), second.const_data_ptr<float>()};
  const auto differentiate = logits.scalar_type() == at::kFloat ? &differentiateRows<float> : &differentiateRows<Half>;
  differentiate(logits, static_cast<float>(temperature), from);
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
