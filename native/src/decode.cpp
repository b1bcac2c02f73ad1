// The two halves of a decoder's layer for one new token per row, and the feed-forward half for prompts too, on the CPU, one call
// each. Made of some thirty operators a layer of a small model waits for the calls, and a row that is decoded alone leaves the
// memory idle between them.
//
// Every number is rounded where the operators round it: products and the cache to the dtype of the weights, the residual
// stream to its own.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "linear.h"
#include "norm.h"
#include "parallel.h"
#include "rows.h"
#include "vectors.h"

namespace posttrain {
namespace {

// Rows up to which a plain weight is read once at the speed of the memory.
constexpr int64_t FEW_ROWS = 4;
// Rows of a prompt that go through a feed-forward layer together.
constexpr int64_t MOST_TOGETHER = 224;
// Numbers that are done before a second thread has begun.
constexpr int64_t GRAIN = 16384;

using Maybe = std::optional<at::Tensor>;

// How rows are normalised: x/√(mean(x²) + eps) · weight, with the rounding of the value before or after it is scaled.
struct NormSettings {
  float eps;
  bool roundsLast;
};

// What a family normalises by, in float32.
const float* factors(const at::Tensor& weight, int64_t width) {
  TORCH_CHECK(weight.is_cpu() && weight.scalar_type() == at::kFloat && weight.is_contiguous() && weight.numel() == width,
              "expected a norm's weight of ", width, " float32 numbers, received ", weight.sizes(), " of ", weight.scalar_type());
  return weight.const_data_ptr<float>();
}

template <typename From, typename To>
INLINE void normaliseWith(const From* x, const float* weight, int64_t width, NormSettings settings, To* y) {
  const float inverse = inverseRms(x, width, settings.eps);
  const int64_t even = width / LANES * LANES;
  for (int64_t at = 0; at < even; at += LANES) {
    const Floats value = load(x + at) * inverse;
    store(y + at, (settings.roundsLast ? value : storedAs(x, value)) * load(weight + at));
  }
  for (int64_t at = even; at < width; at++) {
    const float value = static_cast<float>(x[at]) * inverse;
    y[at] = static_cast<To>((settings.roundsLast ? value : storedAs(x, value)) * weight[at]);
  }
}

PER_PROCESSOR void normalise(const float* x, const float* weight, int64_t width, NormSettings settings, float* y) {
  normaliseWith(x, weight, width, settings, y);
}
PER_PROCESSOR void normalise(const float* x, const float* weight, int64_t width, NormSettings settings, c10::BFloat16* y) {
  normaliseWith(x, weight, width, settings, y);
}
PER_PROCESSOR void normalise(const c10::BFloat16* x, const float* weight, int64_t width, NormSettings settings, c10::BFloat16* y) {
  normaliseWith(x, weight, width, settings, y);
}

// [B, D] normalised, of another dtype.
template <typename From, typename To>
at::Tensor normalised(const at::Tensor& x, const at::Tensor& weight, NormSettings settings) {
  const int64_t rows = x.size(0), width = x.size(1);
  at::Tensor y = emptyRows(rows, width, c10::CppTypeToScalarType<To>::value);
  const float* const by = factors(weight, width);
  const From* const from = x.const_data_ptr<From>();
  To* const to = y.mutable_data_ptr<To>();
  parallelFor(rows, std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) normalise(from + row * width, by, width, settings, to + row * width);
  });
  return y;
}

// x [B, in] → [B, out], by a weight that is plain or packed.
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const Maybe& bias) {
  if (isPacked(weight)) return packedLinear(x, weight, bias);
  return x.size(0) <= FEW_ROWS ? fewRowsLinear(x, weight, bias) : linearValue(x, weight, bias);
}

template <typename Residual, typename Number>
INLINE void addNumbers(const Residual* x, const Number* y, int64_t count, Residual* to) {
  const int64_t even = count / LANES * LANES;
  for (int64_t at = 0; at < even; at += LANES) store(to + at, load(x + at) + load(y + at));
  for (int64_t at = even; at < count; at++) to[at] = static_cast<Residual>(static_cast<float>(x[at]) + static_cast<float>(y[at]));
}

PER_PROCESSOR void addTo(const float* x, const float* y, int64_t count, float* to) { addNumbers(x, y, count, to); }
PER_PROCESSOR void addTo(const float* x, const c10::BFloat16* y, int64_t count, float* to) { addNumbers(x, y, count, to); }
PER_PROCESSOR void addTo(const c10::BFloat16* x, const c10::BFloat16* y, int64_t count, c10::BFloat16* to) {
  addNumbers(x, y, count, to);
}

// sum = hidden + change, which is normalised before where the family does.
template <typename Residual, typename Number>
void addInto(const at::Tensor& sum, const at::Tensor& hidden, const at::Tensor& change, const Maybe& norm, NormSettings settings) {
  const int64_t count = hidden.numel();
  const at::Tensor own = norm.has_value() ? normalised<Number, Number>(change, *norm, settings) : change;
  const Residual* const from = hidden.const_data_ptr<Residual>();
  const Number* const by = own.const_data_ptr<Number>();
  Residual* const to = sum.mutable_data_ptr<Residual>();
  parallelFor(count, GRAIN, [&](int64_t begin, int64_t end) { addTo(from + begin, by + begin, end - begin, to + begin); });
}

// The first numbers of a head, pairs of neighbours, times e^{iθ} pair by pair. turns: cos θ, sin θ, cos θ, …
template <typename Number>
INLINE void turnPairs(Number* head, const float* turns, int64_t rotary) {
  constexpr Eight SIGNS = {-1, 1, -1, 1, -1, 1, -1, 1};
  constexpr Floats BOTH = {SIGNS, SIGNS};
  const int64_t even = rotary / LANES * LANES;
  for (int64_t at = 0; at < even; at += LANES) {
    const Floats numbers = load(head + at), angles = load(turns + at);
    store(head + at, numbers * evenLanes(angles) + swappedLanes(numbers) * (oddLanes(angles) * BOTH));
  }
  for (int64_t at = even; at < rotary; at += 2) {
    const float a = static_cast<float>(head[at]), b = static_cast<float>(head[at + 1]);
    head[at] = static_cast<Number>(a * turns[at] - b * turns[at + 1]);
    head[at + 1] = static_cast<Number>(a * turns[at + 1] + b * turns[at]);
  }
}

PER_PROCESSOR void turn(float* head, const float* turns, int64_t rotary) { turnPairs(head, turns, rotary); }
PER_PROCESSOR void turn(c10::BFloat16* head, const float* turns, int64_t rotary) { turnPairs(head, turns, rotary); }

struct Heads {
  int64_t query, keyValue, width;
};

// Normalises and turns the queries and keys of rows, and puts keys and values into the caches.
template <typename Number>
void place(at::Tensor& all, const Maybe& queryNorm, const Maybe& keyNorm, NormSettings settings, const Maybe& turns,
           const at::Tensor& keys, const at::Tensor& values, int64_t column, Heads heads) {
  const int64_t rows = all.size(0), width = heads.width, perRow = all.size(1);
  const float* const byQuery = queryNorm.has_value() ? factors(*queryNorm, width) : nullptr;
  const float* const byKey = keyNorm.has_value() ? factors(*keyNorm, width) : nullptr;
  const float* const angles = turns.has_value() ? turns->const_data_ptr<float>() : nullptr;
  const int64_t rotary = turns.has_value() ? turns->size(1) : 0, anglesStep = turns.has_value() && turns->size(0) > 1 ? rotary : 0;
  Number* const from = all.mutable_data_ptr<Number>();
  Number *const key = keys.mutable_data_ptr<Number>(), *const value = values.mutable_data_ptr<Number>();
  const int64_t keyRow = keys.stride(0), keyHead = keys.stride(1), valueRow = values.stride(0), valueHead = values.stride(1);
  const int64_t keyAt = column * keys.stride(2), valueAt = column * values.stride(2);
  parallelFor(rows, std::max<int64_t>(1, GRAIN / 4 / perRow), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      Number* const own = from + row * perRow;
      for (int64_t head = 0; head < heads.query + heads.keyValue; head++) {
        Number* const numbers = own + head * width;
        const float* const by = head < heads.query ? byQuery : byKey;
        if (by != nullptr) normalise(numbers, by, width, settings, numbers);
        if (angles != nullptr) turn(numbers, angles + row * anglesStep, rotary);
      }
      for (int64_t head = 0; head < heads.keyValue; head++) {
        const Number* const ownKey = own + (heads.query + head) * width;
        const Number* const ownValue = ownKey + heads.keyValue * width;
        std::copy_n(ownKey, width, key + row * keyRow + head * keyHead + keyAt);
        std::copy_n(ownValue, width, value + row * valueRow + head * valueHead + valueAt);
      }
    }
  });
}

// The dtype of weights: of a packed one, of its numbers.
bool isBfloat16(const at::Tensor& weight) { return weight.scalar_type() == at::kBFloat16; }

// Calls with the types of the residual stream and of products.
template <typename Call>
at::Tensor withTypes(const at::Tensor& hidden, const at::Tensor& weight, const Call& call) {
  TORCH_CHECK(hidden.dim() == 2 && hidden.is_cpu() && hidden.is_contiguous() && hidden.numel() > 0,
              "expected hidden states [B, D] on the CPU, received ", hidden.sizes());
  TORCH_CHECK(!at::GradMode::is_enabled() || !hidden.requires_grad(), "has no gradient: expected noGrad");
  const bool isHalf = hidden.scalar_type() == at::kBFloat16;
  TORCH_CHECK((isHalf || hidden.scalar_type() == at::kFloat) &&
                  (isBfloat16(weight) || (weight.scalar_type() == at::kFloat && !isHalf)),
              "expected hidden states and weights of float32 or bfloat16, received ", hidden.scalar_type(), " and ",
              weight.scalar_type());
  if (isHalf) return call(c10::BFloat16(), c10::BFloat16());
  return isBfloat16(weight) ? call(float(), c10::BFloat16()) : call(float(), float());
}

void checkMask(const Maybe& mask, const at::Tensor& keys) {
  if (!mask.has_value()) return;
  TORCH_CHECK(mask->sizes() == at::IntArrayRef({keys.size(0), keys.size(2)}) && mask->scalar_type() == at::kFloat &&
                  mask->is_contiguous() && mask->is_cpu(),
              "expected a float32 mask of ", keys.size(0), " rows and ", keys.size(2), " columns, received ", mask->sizes());
}

// @returns how many columns stand before those of the rows
int64_t checkPrompts(const Maybe& keys, const Maybe& values, const Maybe& mask, const Maybe& rows, const at::Tensor& own) {
  if (!keys.has_value()) return 0;
  TORCH_CHECK(values.has_value() && rows.has_value() && keys->dim() == 4 && keys->sizes() == values->sizes() &&
                  keys->size(1) == own.size(1) && keys->size(3) == own.size(3) && keys->stride(3) == 1 &&
                  values->stride(3) == 1 && keys->scalar_type() == own.scalar_type() &&
                  values->scalar_type() == own.scalar_type() && keys->is_cpu() && values->is_cpu(),
              "expected keys and values of prompts [P, ", own.size(1), ", L, ", own.size(3), "] with the row of each, received ",
              keys->sizes());
  TORCH_CHECK(rows->sizes() == at::IntArrayRef({own.size(0)}) && rows->scalar_type() == at::kInt && rows->is_contiguous() &&
                  rows->is_cpu(),
              "expected the prompt of each row, [", own.size(0), "] int32, received ", rows->sizes());
  const int32_t* const named = rows->const_data_ptr<int32_t>();
  for (int64_t row = 0; row < own.size(0); row++)
    TORCH_CHECK(named[row] >= 0 && named[row] < keys->size(0), "expected prompts 0 to ", keys->size(0) - 1, ", received ", named[row]);
  checkMask(mask, *keys);
  return keys->size(2);
}

// hidden + output(attention(qkv(norm(hidden)))). The query of a row looks at its cache up to `column`, where its own key
// and value are written, and before that at the columns of a prompt; of both together from column `first` on.
//   hidden [B, D]; qkv [(H + 2·Hkv)·d, D] and output [D, H·d], packed or plain; norms float32;
//   turns [B or 1, R] float32: cos θ, sin θ, … of each pair of neighbours;
//   keys and values [B, Hkv, capacity, d]; mask [B, capacity] float32 added to the scores; softcap 0: none
//   prompt keys and values [P, Hkv, L, d], prompt mask [P, L], prompt rows [B] int32 from 0 to P − 1; all or none
at::Tensor decodeAttention(const at::Tensor& hidden, const at::Tensor& norm, const at::Tensor& qkv, const Maybe& qkvBias,
                           const Maybe& queryNorm, const Maybe& keyNorm, const at::Tensor& output, const Maybe& outputBias,
                           const Maybe& outputNorm, double eps, bool roundsLast, const Maybe& turns, const at::Tensor& keys,
                           const at::Tensor& values, const Maybe& mask, const Maybe& promptKeys, const Maybe& promptValues,
                           const Maybe& promptMask, const Maybe& promptRows, int64_t column, int64_t first, double scale,
                           double softcap) {
  const NormSettings settings{static_cast<float>(eps), roundsLast};
  return withTypes(hidden, qkv, [&](auto residual, auto number) {
    using Residual = decltype(residual);
    using Number = decltype(number);
    TORCH_CHECK(keys.dim() == 4 && keys.sizes() == values.sizes() && keys.size(0) == hidden.size(0) && keys.stride(3) == 1 &&
                    values.stride(3) == 1 && keys.scalar_type() == c10::CppTypeToScalarType<Number>::value &&
                    values.scalar_type() == keys.scalar_type() && keys.is_cpu() && 0 <= column && column < keys.size(2),
                "expected caches [B, Hkv, capacity, d] with room at column ", column, ", received ", keys.sizes(), " and ",
                values.sizes());
    checkMask(mask, keys);
    const int64_t before = checkPrompts(promptKeys, promptValues, promptMask, promptRows, keys);
    TORCH_CHECK(0 <= first && first <= before + column, "expected the first column that is seen to be 0 to ", before + column,
                ", received ", first);
    at::Tensor all = product(normalised<Residual, Number>(hidden, norm, settings), qkv, qkvBias);
    const int64_t width = keys.size(3), keyValue = keys.size(1), query = all.size(1) / width - 2 * keyValue;
    TORCH_CHECK(query > 0 && all.size(1) % width == 0 && query % keyValue == 0, "expected queries, keys and values of ", keyValue,
                " heads of ", width, " numbers, received ", all.size(1), " numbers");
    if (turns.has_value())
      TORCH_CHECK(turns->dim() == 2 && turns->is_contiguous() && turns->scalar_type() == at::kFloat && turns->size(1) <= width &&
                      turns->size(1) % 2 == 0 && (turns->size(0) == 1 || turns->size(0) == hidden.size(0)),
                  "expected turns [B or 1, R] of float32, received ", turns->sizes());
    place<Number>(all, queryNorm, keyNorm, settings, turns, keys, values, column, Heads{query, keyValue, width});
    const int64_t ownFirst = std::max<int64_t>(0, first - before);
    Seen seen{query, Columns{keys, values, mask, ownFirst, column + 1 - ownFirst}, std::nullopt, nullptr};
    if (first < before) {
      seen.shared.emplace(Columns{*promptKeys, *promptValues, promptMask, first, before - first});
      seen.sharedRows = &*promptRows;
    }
    const at::Tensor mixed = attendSeen(all, seen, scale, softcap);
    const at::Tensor sum = emptyRows(hidden.size(0), hidden.size(1), hidden.scalar_type());
    addInto<Residual, Number>(sum, hidden, product(mixed, output, outputBias), outputNorm, settings);
    return sum;
  });
}

INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

// x·σ(x); with tanh GELU's approximation is x·σ(2·√(2/π)·(x + 0.044715·x³)).
INLINE Floats activated(Floats x, bool isGelu) {
  constexpr float FACTOR = 1.5957691216057308f;
  const Floats inner = isGelu ? FACTOR * (x + 0.044715f * x * x * x) : x;
  // Beyond it e^-x is no number, and the result is 0 either way.
  return x * sigmoid(atLeast(inner, -80));
}

// Rounded before it is multiplied, as an operator's result is.
template <typename Number>
INLINE Floats gated(const Number* gate, const Number* up, bool isGelu) {
  const Floats value = activated(load(gate), isGelu);
  return up == nullptr ? value : storedAs(gate, value) * load(up);
}

template <typename Number>
INLINE void gateRow(const Number* gate, const Number* up, int64_t width, bool isGelu, Number* to) {
  const int64_t even = width / LANES * LANES, rest = width - even;
  for (int64_t at = 0; at < even; at += LANES) store(to + at, gated(gate + at, up == nullptr ? up : up + at, isGelu));
  if (rest == 0) return;
  Number lastGate[LANES] = {}, lastUp[LANES] = {}, last[LANES];
  std::copy_n(gate + even, rest, lastGate);
  if (up != nullptr) std::copy_n(up + even, rest, lastUp);
  store(last, gated(lastGate, up == nullptr ? up : lastUp, isGelu));
  std::copy_n(last, rest, to + even);
}

PER_PROCESSOR void gate(const float* gate, const float* up, int64_t width, bool isGelu, float* to) { gateRow(gate, up, width, isGelu, to); }
PER_PROCESSOR void gate(const c10::BFloat16* gate, const c10::BFloat16* up, int64_t width, bool isGelu, c10::BFloat16* to) {
  gateRow(gate, up, width, isGelu, to);
}

// hidden + output(act(gate(x)) · up(x)) with x = norm(hidden), or output(act(input(x))) where it is not gated.
//   input [2·I, D]: the rows of gate and of up, or [I, D]; output [D, I]; packed or plain
at::Tensor decodeMlp(const at::Tensor& hidden, const at::Tensor& norm, const at::Tensor& input, const Maybe& inputBias,
                     const at::Tensor& output, const Maybe& outputBias, const Maybe& outputNorm, double eps, bool roundsLast,
                     bool isGated, bool isGelu) {
  const NormSettings settings{static_cast<float>(eps), roundsLast};
  return withTypes(hidden, input, [&](auto residual, auto number) {
    using Residual = decltype(residual);
    using Number = decltype(number);
    const at::Tensor sum = emptyRows(hidden.size(0), hidden.size(1), hidden.scalar_type());
    // What stands between the products stays in the processor's caches.
    for (int64_t first = 0; first < hidden.size(0); first += MOST_TOGETHER) {
      const int64_t rows = std::min(MOST_TOGETHER, hidden.size(0) - first);
      const bool isWhole = rows == hidden.size(0);
      const at::Tensor own = isWhole ? hidden : hidden.narrow(0, first, rows);
      const at::Tensor both = product(normalised<Residual, Number>(own, norm, settings), input, inputBias);
      const int64_t all = both.size(1), width = isGated ? all / 2 : all;
      at::Tensor inner = emptyRows(rows, width, both.scalar_type());
      const Number* const from = both.const_data_ptr<Number>();
      Number* const to = inner.mutable_data_ptr<Number>();
      parallelFor(rows, std::max<int64_t>(1, GRAIN / 4 / width), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
          const Number* const at = from + row * all;
          gate(at, isGated ? at + width : nullptr, width, isGelu, to + row * width);
        }
      });
      addInto<Residual, Number>(isWhole ? sum : sum.narrow(0, first, rows), own, product(inner, output, outputBias), outputNorm,
                                settings);
    }
    return sum;
  });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def(
      "decode_attention(Tensor hidden, Tensor norm, Tensor qkv, Tensor? qkv_bias, Tensor? query_norm, Tensor? key_norm, "
      "Tensor output, Tensor? output_bias, Tensor? output_norm, float eps, bool rounds_last, Tensor? turns, Tensor keys, "
      "Tensor values, Tensor? mask, Tensor? prompt_keys, Tensor? prompt_values, Tensor? prompt_mask, Tensor? prompt_rows, "
      "int column, int first, float scale, float softcap) -> Tensor",
      &decodeAttention);
  library.def(
      "decode_mlp(Tensor hidden, Tensor norm, Tensor input, Tensor? input_bias, Tensor output, Tensor? output_bias, "
      "Tensor? output_norm, float eps, bool rounds_last, bool is_gated, bool is_gelu) -> Tensor",
      &decodeMlp);
}

}  // namespace posttrain
