// Kernels for a few rows of tokens, where libtorch's operators leave the memory idle: a product of one row with a matrix
// reads each weight once, and what counts is to read at the speed of the memory.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "napi.h"
#include "parallel.h"
#include "rows.h"
#include "vectors.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace posttrain {
namespace {

// Rows of x that are multiplied together.
constexpr int64_t MOST_ROWS = 4;

// Bytes from what is read to what is asked for, found by measuring on a processor of Intel.
constexpr int64_t AHEAD = 2048;

// Rows of the weight that are read at once, from places far apart: memory comes faster from several. As many as there are
// registers for, of AVX2 or of AVX-512, beside those of M rows of x.
constexpr int64_t placesOfAvx2(int64_t rows) { return rows == 1 ? 4 : rows == 4 ? 1 : 2; }
constexpr int64_t PLACES_OF_AVX512 = 4;

// One row of the weight in each of COUNT stretches, and where its sum goes.
template <int64_t COUNT, typename Weight>
struct Places {
  const Weight* from[COUNT];
  float* to[COUNT];

  static int64_t stretch(int64_t rows) { return (rows + COUNT - 1) / COUNT; }
  INLINE Places(const Weight* weight, int64_t width, int64_t rows, int64_t row, float* result) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < COUNT; i++) {
      // At the end a row is computed twice.
      const int64_t own = std::min(i * stretch(rows) + row, rows - 1);
      from[i] = weight + own * width;
      to[i] = result + own;
    }
  }
};

// Beyond the end of a weight nothing is read.
template <typename Number>
INLINE void askAhead(const Number* from) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(from) + AHEAD));
}

template <int64_t M, typename Weight>
INLINE void dotRows(const float* x, const Weight* weight, int64_t width, int64_t rows, float* result, int64_t step) {
  constexpr int64_t PLACES = placesOfAvx2(M);
  const int64_t even = width / LANES * LANES;
  for (int64_t row = 0; row < Places<PLACES, Weight>::stretch(rows); row++) {
    const Places<PLACES, Weight> places(weight, width, rows, row, result);
    Floats found[M][PLACES] = {};
    for (int64_t at = 0; at < even; at += LANES) {
#pragma GCC unroll 4
      for (int64_t place = 0; place < PLACES; place++) {
        askAhead(places.from[place] + at);
        const Floats factor = load(places.from[place] + at);
#pragma GCC unroll 4
        for (int64_t i = 0; i < M; i++) found[i][place] += factor * load(x + i * width + at);
      }
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < M; i++)
#pragma GCC unroll 4
      for (int64_t place = 0; place < PLACES; place++) {
        float total = sumOf(found[i][place]);
        for (int64_t at = even; at < width; at++) total += x[i * width + at] * static_cast<float>(places.from[place][at]);
        places.to[place][i * step] = total;
      }
  }
}

template <typename Weight>
INLINE void dotSomeRows(const float* x, int64_t xRows, const Weight* weight, int64_t width, int64_t rows, float* result, int64_t step) {
  switch (xRows) {
    case 1: return dotRows<1>(x, weight, width, rows, result, step);
    case 2: return dotRows<2>(x, weight, width, rows, result, step);
    case 3: return dotRows<3>(x, weight, width, rows, result, step);
    default: return dotRows<4>(x, weight, width, rows, result, step);
  }
}

PER_PROCESSOR void dotFloats(const float* x, int64_t xRows, const float* weight, int64_t width, int64_t rows, float* result,
                             int64_t step) {
  dotSomeRows(x, xRows, weight, width, rows, result, step);
}

PER_PROCESSOR void dotHalves(const float* x, int64_t xRows, const c10::BFloat16* weight, int64_t width, int64_t rows,
                             float* result, int64_t step) {
  dotSomeRows(x, xRows, weight, width, rows, result, step);
}

#if defined(__x86_64__) && defined(__GNUC__)
// The same where the processor multiplies numbers of bfloat16 in pairs: a quarter of the instructions, without which one
// row's product waits for them and not for the memory.
#define WITH_PAIRS __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

WITH_PAIRS INLINE __m512bh pairs(const c10::BFloat16* from) { return (__m512bh)_mm512_loadu_si512(from); }

template <int64_t M>
WITH_PAIRS INLINE void dotPairs(
    const c10::BFloat16* x, const c10::BFloat16* weight, int64_t width, int64_t rows, float* result, int64_t step) {
  constexpr int64_t PAIRS = 2 * LANES, PLACES = PLACES_OF_AVX512;
  const int64_t even = width / PAIRS * PAIRS;
  for (int64_t row = 0; row < Places<PLACES, c10::BFloat16>::stretch(rows); row++) {
    const Places<PLACES, c10::BFloat16> places(weight, width, rows, row, result);
    __m512 found[M][PLACES];
#pragma GCC unroll 4
    for (int64_t i = 0; i < M; i++)
#pragma GCC unroll 4
      for (int64_t place = 0; place < PLACES; place++) found[i][place] = _mm512_setzero_ps();
    for (int64_t at = 0; at < even; at += PAIRS) {
#pragma GCC unroll 4
      for (int64_t place = 0; place < PLACES; place++) {
        askAhead(places.from[place] + at);
        const __m512bh factor = pairs(places.from[place] + at);
#pragma GCC unroll 4
        for (int64_t i = 0; i < M; i++)
          found[i][place] = _mm512_dpbf16_ps(found[i][place], factor, pairs(x + i * width + at));
      }
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < M; i++)
#pragma GCC unroll 4
      for (int64_t place = 0; place < PLACES; place++) {
        Floats lanes;
        std::memcpy(&lanes, &found[i][place], sizeof lanes);
        float total = sumOf(lanes);
        for (int64_t at = even; at < width; at++) total += static_cast<float>(x[i * width + at]) * static_cast<float>(places.from[place][at]);
        places.to[place][i * step] = total;
      }
  }
}

WITH_PAIRS void dotHalvesInPairs(const c10::BFloat16* x, int64_t xRows, const c10::BFloat16* weight, int64_t width,
                                 int64_t rows, float* result, int64_t step) {
  switch (xRows) {
    case 1: return dotPairs<1>(x, weight, width, rows, result, step);
    case 2: return dotPairs<2>(x, weight, width, rows, result, step);
    case 3: return dotPairs<3>(x, weight, width, rows, result, step);
    default: return dotPairs<4>(x, weight, width, rows, result, step);
  }
}

bool multipliesPairs() {
  static const bool answer = __builtin_cpu_supports("avx512bf16");
  return answer;
}
#else
void dotHalvesInPairs(const c10::BFloat16*, int64_t, const c10::BFloat16*, int64_t, int64_t, float*, int64_t) {}
bool multipliesPairs() { return false; }
#endif

// x [M, in], weight [out, in] → [M, out]
template <typename Number>
void multiplyRows(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, at::Tensor& y) {
  constexpr int64_t BLOCK = 32;
  const int64_t rows = x.size(0), width = x.size(1), outputs = weight.size(0);
  const bool inPairs = std::is_same_v<Number, c10::BFloat16> && multipliesPairs();
  const at::Tensor narrow = x.contiguous(), wide = inPairs ? narrow : narrow.to(at::kFloat);
  const Number* const halves = narrow.const_data_ptr<Number>();
  const float* const floats = inPairs ? nullptr : wide.const_data_ptr<float>();
  const Number* const weights = weight.const_data_ptr<Number>();
  const Number* const offset = bias.has_value() ? bias->const_data_ptr<Number>() : nullptr;
  Number* const to = y.mutable_data_ptr<Number>();
  parallelPieces(outputs, BLOCK, [&](int64_t first, int64_t end) {
    float found[MOST_ROWS * BLOCK];
    const int64_t count = end - first;
    for (int64_t row = 0; row < rows; row += MOST_ROWS) {
      const int64_t some = std::min(MOST_ROWS, rows - row), at = row * width;
      const Number* const from = weights + first * width;
      if constexpr (std::is_same_v<Number, float>) dotFloats(floats + at, some, from, width, count, found, BLOCK);
      else if (inPairs) dotHalvesInPairs(halves + at, some, from, width, count, found, BLOCK);
      else dotHalves(floats + at, some, from, width, count, found, BLOCK);
      for (int64_t i = 0; i < some; i++)
        for (int64_t j = 0; j < count; j++) {
          const float added = offset ? static_cast<float>(offset[first + j]) : 0;
          to[(row + i) * outputs + first + j] = static_cast<Number>(found[i * BLOCK + j] + added);
        }
    }
  });
}

bool isPlain(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.layout() == at::kStrided && tensor.is_cpu() && tensor.scalar_type() == dtype && tensor.is_contiguous();
}

}  // namespace

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
  if (bias.has_value()) refuseGradient("few_rows_linear", {*bias});
  at::Tensor y = emptyRows(x.size(0), weight.size(0), dtype);
  if (dtype == at::kFloat) multiplyRows<float>(x, weight, bias, y);
  else multiplyRows<c10::BFloat16>(x, weight, bias, y);
  return y;
}

namespace {

// Keys and values of one row and one head: so many columns, each `width` numbers that lie together.
template <typename Number>
struct Cached {
  const Number *keys, *values;
  int64_t keyStep, valueStep, columns, width;
};

// What is asked for while something else is computed: stretches of memory side by side, a line of each at a time.
class Asked {
 public:
  void add(const void* from, int64_t bytes) {
    if (bytes <= 0) return;
    stretches_[count_++] = {reinterpret_cast<uintptr_t>(from), (bytes + LINE - 1) / LINE};
    most_ = std::max(most_, stretches_[count_ - 1].lines);
  }
  // So that all is asked for within so many steps.
  void spread(int64_t steps) { rounds_ = (most_ + steps - 1) / steps; }
  INLINE void step() {
    for (int64_t round = 0; round < rounds_; round++)
      for (int64_t i = 0; i < count_; i++) {
        if (stretches_[i].lines-- <= 0) continue;
        __builtin_prefetch(reinterpret_cast<const void*>(stretches_[i].at), 0, 2);
        stretches_[i].at += LINE;
      }
  }

 private:
  static constexpr int64_t LINE = 64;
  struct Stretch {
    uintptr_t at;
    int64_t lines;
  };
  Stretch stretches_[4];
  int64_t count_ = 0, most_ = 0, rounds_ = 0;
};

// scores[j] = x · keys[j]
template <typename Number>
INLINE void scoreKeys(const float* x, const Cached<Number>& cached, float* scores, Asked& asked) {
  const int64_t even = cached.width / LANES * LANES;
  for (int64_t column = 0; column < cached.columns; column += 4) {
    asked.step();
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

// to += Σ_j weights[j] · values[j]
template <typename Number>
INLINE void mixValues(const float* weights, const Cached<Number>& cached, float* to) {
  int64_t at = 0;
  for (; at + 4 * LANES <= cached.width; at += 4 * LANES) {
    Floats a = load(to + at), b = load(to + at + LANES), c = load(to + at + 2 * LANES), d = load(to + at + 3 * LANES);
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
    Floats sum = load(to + at);
    for (int64_t column = 0; column < cached.columns; column++)
      sum += weights[column] * load(cached.values + column * cached.valueStep + at);
    store(to + at, sum);
  }
  for (; at < cached.width; at++) {
    float sum = to[at];
    for (int64_t column = 0; column < cached.columns; column++)
      sum += weights[column] * static_cast<float>(cached.values[column * cached.valueStep + at]);
    to[at] = sum;
  }
}

struct Scoring {
  float scale, softcap;  // no cap where it is 0
};

// Scales, caps and masks scores. @returns the largest
INLINE float finishScores(float* scores, int64_t columns, const float* mask, Scoring scoring) {
  const int64_t even = columns / LANES * LANES;
  const float scale = scoring.softcap != 0 ? 1 : scoring.scale;
  if (scoring.softcap != 0)
    for (int64_t column = 0; column < columns; column++)
      scores[column] = scoring.softcap * std::tanh(scores[column] * scoring.scale / scoring.softcap);
  Floats most = filled(-INFINITY);
  for (int64_t column = 0; column < even; column += LANES) {
    const Floats found = load(scores + column) * scale + (mask ? load(mask + column) : Floats{});
    most = larger(found, most);
    store(scores + column, found);
  }
  float largest = largestOf(most);
  for (int64_t column = even; column < columns; column++) {
    scores[column] = scores[column] * scale + (mask ? mask[column] : 0);
    largest = std::max(largest, scores[column]);
  }
  return largest;
}

INLINE void toProbabilities(float* scores, int64_t columns, float largest) {
  const int64_t even = columns / LANES * LANES;
  Floats sums{};
  for (int64_t column = 0; column < even; column += LANES) {
    const Floats found = exponential(load(scores + column) - largest);
    sums += found;
    store(scores + column, found);
  }
  float total = sumOf(sums);
  for (int64_t column = even; column < columns; column++) total += scores[column] = std::exp(scores[column] - largest);
  const float inverse = 1 / total;
  for (int64_t column = 0; column < columns; column++) scores[column] *= inverse;
}

template <typename Number>
INLINE void toFloats(const Number* from, int64_t count, float* to) {
  const int64_t even = count / LANES * LANES;
  for (int64_t at = 0; at < even; at += LANES) store(to + at, load(from + at));
  for (int64_t at = even; at < count; at++) to[at] = static_cast<float>(from[at]);
}

template <typename Number>
INLINE void fromFloats(const float* from, int64_t count, Number* to) {
  const int64_t even = count / LANES * LANES;
  for (int64_t at = 0; at < even; at += LANES) store(to + at, load(from + at));
  for (int64_t at = even; at < count; at++) to[at] = static_cast<Number>(from[at]);
}

// What one head of one row reads.
template <typename Number>
struct Read {
  const Number* query;
  Number* to;
  // Columns before its own; none where there is no width.
  Cached<Number> shared;
  const float* sharedMask;
  Cached<Number> own;
  const float* ownMask;
};

// With room for the scores of all columns and for two vectors of a head.
template <typename Number>
INLINE void attendHead(const Read<Number>& read, Scoring scoring, float* scores, Asked& asked) {
  const int64_t width = read.own.width, before = read.shared.width == 0 ? 0 : read.shared.columns;
  const int64_t columns = before + read.own.columns;
  float *const wide = scores + columns, *const mixed = wide + width;
  toFloats(read.query, width, wide);
  float largest = -INFINITY;
  if (before > 0) {
    scoreKeys(wide, read.shared, scores, asked);
    largest = finishScores(scores, before, read.sharedMask, scoring);
  }
  scoreKeys(wide, read.own, scores + before, asked);
  largest = std::max(largest, finishScores(scores + before, read.own.columns, read.ownMask, scoring));
  toProbabilities(scores, columns, largest);
  for (int64_t at = 0; at < width; at++) mixed[at] = 0;
  if (before > 0) mixValues(scores, read.shared, mixed);
  mixValues(scores + before, read.own, mixed);
  fromFloats(mixed, width, read.to);
}

PER_PROCESSOR void attendOne(const Read<float>& read, Scoring scoring, float* scores, Asked& asked) {
  attendHead(read, scoring, scores, asked);
}
PER_PROCESSOR void attendOne(const Read<c10::BFloat16>& read, Scoring scoring, float* scores, Asked& asked) {
  attendHead(read, scoring, scores, asked);
}

// A cache as kernels read it.
template <typename Number>
class Segment {
 public:
  explicit Segment(const Columns& columns)
      : width(columns.keys.size(3)),
        columns_(columns.count),
        keyRow(columns.keys.stride(0)),
        keyHead(columns.keys.stride(1)),
        keyStep(columns.keys.stride(2)),
        valueRow(columns.values.stride(0)),
        valueHead(columns.values.stride(1)),
        valueStep(columns.values.stride(2)),
        maskRow(columns.mask.has_value() ? columns.mask->stride(0) : 0),
        keys(columns.keys.const_data_ptr<Number>() + columns.first * keyStep),
        values(columns.values.const_data_ptr<Number>() + columns.first * valueStep),
        hidden(columns.mask.has_value() ? columns.mask->const_data_ptr<float>() + columns.first : nullptr) {}

  int64_t columns() const { return columns_; }
  Cached<Number> of(int64_t row, int64_t head) const {
    return {keys + row * keyRow + head * keyHead, values + row * valueRow + head * valueHead, keyStep, valueStep, columns_, width};
  }
  const float* mask(int64_t row) const { return hidden == nullptr ? nullptr : hidden + row * maskRow; }
  void ask(int64_t row, int64_t head, Asked& asked) const {
    const Cached<Number> cached = of(row, head);
    asked.add(cached.keys, columns_ * keyStep * static_cast<int64_t>(sizeof(Number)));
    asked.add(cached.values, columns_ * valueStep * static_cast<int64_t>(sizeof(Number)));
  }

 private:
  int64_t width, columns_, keyRow, keyHead, keyStep, valueRow, valueHead, valueStep, maskRow;
  const Number *keys, *values;
  const float* hidden;
};

template <typename Number>
at::Tensor attend(const at::Tensor& queries, const Seen& seen, Scoring scoring) {
  const at::Tensor& keys = seen.own.keys;
  const int64_t rows = keys.size(0), kvHeads = keys.size(1), width = keys.size(3), group = seen.heads / kvHeads;
  const Segment<Number> own(seen.own), shared(seen.shared.value_or(seen.own));
  const int32_t* const sharedRows = seen.shared.has_value() ? seen.sharedRows->const_data_ptr<int32_t>() : nullptr;
  const int64_t before = sharedRows == nullptr ? 0 : shared.columns(), columns = before + own.columns();
  const int64_t step = queries.stride(0);
  const Number* const query = queries.const_data_ptr<Number>();
  at::Tensor result = emptyRows(rows, seen.heads * width, keys.scalar_type());
  Number* const to = result.mutable_data_ptr<Number>();
  // Rows that share columns read them one after the other, head by head: they come from the processor's cache then. The
  // heads that share a key stay together, where there are enough of them for all threads, and each thread takes several such
  // groups, so that it can ask for the next one; less than 8192 numbers are done before a second thread has begun.
  const int64_t share = rows * kvHeads / (4 * at::get_num_threads()), together = share >= 1 ? group : 1;
  const int64_t grain = std::max({int64_t{1}, 8192 / (together * columns * width), share}) * together;
  parallelPieces(rows * seen.heads, grain, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> room;
    room.resize(columns + 2 * width);
    Asked asked;
    for (int64_t at = begin; at < end; at++) {
      const int64_t kvHead = at / group / rows, row = at / group % rows, head = kvHead * group + at % group;
      const int64_t sharedRow = sharedRows == nullptr ? 0 : sharedRows[row];
      if (at % group == 0) {
        asked = Asked();
        const int64_t then = at + group, nextRow = then / group % rows, nextHead = then / group / rows;
        if (then < end) {
          own.ask(nextRow, nextHead, asked);
          const bool isSame = before == 0 || (nextHead == kvHead && sharedRows[nextRow] == sharedRow);
          if (!isSame) shared.ask(sharedRows[nextRow], nextHead, asked);
          asked.spread(group * ((columns + 3) / 4));
        }
      }
      Read<Number> read{query + row * step + head * width, to + row * seen.heads * width + head * width, {}, nullptr,
                        own.of(row, kvHead), own.mask(row)};
      if (before > 0) {
        read.shared = shared.of(sharedRow, kvHead);
        read.sharedMask = shared.mask(sharedRow);
      }
      attendOne(read, scoring, room.data(), asked);
    }
  });
  return result;
}

}  // namespace

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
  if (mask.has_value())
    TORCH_CHECK(mask->sizes() == at::IntArrayRef({keys.size(0), keys.size(2)}) && mask->scalar_type() == at::kFloat && mask->is_cpu(),
                "expected a float32 mask [B, L]");
  // Rounded to the cache's dtype, as products of it are. The heads of a row lie together, rows may be further apart.
  const bool liesWell = query.scalar_type() == dtype && query.stride(2) == 1 && query.stride(1) == query.size(2);
  const at::Tensor own = liesWell ? query : query.to(dtype).contiguous();
  const std::optional<at::Tensor> added = mask.has_value() && mask->stride(1) != 1 ? mask->contiguous() : mask;
  const Seen seen{query.size(1), Columns{keys, values, added, 0, keys.size(2)}, std::nullopt, nullptr};
  return attendSeen(own, seen, scale, softcap);
}

at::Tensor attendSeen(const at::Tensor& queries, const Seen& seen, double scale, double softcap) {
  const Scoring scoring{static_cast<float>(scale), static_cast<float>(softcap)};
  return seen.own.keys.scalar_type() == at::kFloat ? attend<float>(queries, seen, scoring)
                                               : attend<c10::BFloat16>(queries, seen, scoring);
}

bool processorMultipliesPairs() { return multipliesPairs(); }

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("few_rows_linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor", &fewRowsLinear);
  library.def(
      "attend_rows(Tensor query, Tensor keys, Tensor values, Tensor? mask, float scale, float softcap) -> Tensor",
      &attendRows);
}

}  // namespace posttrain
