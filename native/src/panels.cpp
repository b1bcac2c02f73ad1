// Products of a matrix with another one, of which 32 columns each lie in a panel: for weights that stay as they are, as in
// sampling, and for bfloat16 on processors that multiply it slower than float32.
//
// A library's product of a few rows waits for the weights to come from memory and then multiplies. Here the next panel is
// asked for while this one is multiplied, so that the longer of the two counts and not their sum. Numbers of bfloat16 are
// widened as they are read: column i of a panel lies beside column i + 16, in the lower and the upper half of a word, and each is
// widened by one instruction. `npm run bench -- parts` measures both.
//
// Each result is the sum over the inputs in their order, whatever other rows there are and whichever thread computes it: a row
// gets the same bits in every batch.
#include "panels.h"

#include <ATen/EmptyTensor.h>

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <vector>

#include "parallel.h"
#include "vectors.h"

namespace posttrain {
namespace {

constexpr int64_t HALF = PANEL / 2;
// Inputs that are summed up before other rows take their turn: of a longer panel the core's cache would lose the front.
constexpr int64_t DEPTH = 1024;
// Inputs after which the next panel is asked for again.
constexpr int64_t STRIDE = 4;
constexpr int64_t LINE = 64;
// Numbers of x that stay in a core's cache while the panels pass; they are so many rows at least and at most.
constexpr int64_t KEPT = int64_t{1} << 17;
constexpr int64_t LEAST_KEPT = 56, MOST_KEPT = 252;
// Multiplications that are done before a second thread has begun.
constexpr int64_t SMALL_PRODUCT = int64_t{1} << 17;

// Numbers of panels that are made before a second thread has begun.
constexpr int64_t SMALL_FILL = int64_t{1} << 14;
// Inputs and numbers that lie in panels at a time while a product is computed: what costs little beside its factors.
constexpr int64_t MOST_INPUTS = 2048;
constexpr int64_t MOST_IN_PANELS = int64_t{1} << 20;

// `rows` of x with a part of a panel.
template <typename Weight>
struct Part {
  const float* x;
  int64_t step, stride;  // from row to row, and from input to input
  const Weight* weight;
  int64_t depth;
  float* sums;  // [rows, PANEL]
  bool isFirst;  // or added to what the sums are
  // What is asked for meanwhile: after every STRIDE inputs a line of each of so many stretches, which lie `gap` bytes apart.
  // Memory comes faster from several places at once.
  uintptr_t ahead;
  int64_t stretches, gap;
};

#if defined(__x86_64__) && defined(__GNUC__)

#define WITH_AVX2 __attribute__((target("avx2,fma")))
#define WITH_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))

typedef float Sixteen __attribute__((vector_size(64)));
typedef uint32_t SixteenWords __attribute__((vector_size(64)));
typedef uint16_t SixteenHalves __attribute__((vector_size(32)));
template <typename Vector>
INLINE void read(const float* from, Vector& to) { std::memcpy(&to, from, sizeof to); }

WITH_AVX512 INLINE SixteenHalves halvesAt(const c10::BFloat16* from) {
  SixteenHalves halves;
  std::memcpy(&halves, from, sizeof halves);
  return halves;
}

// Outputs of one input from `column` on, and those half a panel further.
template <typename Vector>
INLINE void readBoth(const float* input, int64_t column, Vector& first, Vector& second) {
  read(input + column, first);
  read(input + HALF + column, second);
}
template <typename Vector>
INLINE void readBoth(const c10::BFloat16* input, int64_t column, Vector& first, Vector& second) {
  using Words = std::conditional_t<sizeof(Vector) == sizeof(SixteenWords), SixteenWords, EightWords>;
  Words words;
  std::memcpy(&words, input + 2 * column, sizeof words);
  first = (Vector)(words << 16);
  second = (Vector)(words & 0xffff0000u);
}

// A register of outputs from `column` on and one half a panel further, of ROWS rows.
template <typename Vector, int64_t ROWS, typename Weight>
INLINE void multiplyBy(const Part<Weight>& part, int64_t column) {
  const int64_t step = part.step, stride = part.stride, even = part.depth / STRIDE * STRIDE;
  const float* x = part.x;
  const Weight* const weight = part.weight;
  uintptr_t ahead = part.ahead;
  Vector sums[ROWS][2] = {};
  if (!part.isFirst) {
#pragma GCC unroll 14
    for (int64_t i = 0; i < ROWS; i++) readBoth(part.sums + i * PANEL, column, sums[i][0], sums[i][1]);
  }
  const auto multiply = [&](int64_t k) __attribute__((always_inline)) {
    Vector first, second;
    readBoth(weight + k * PANEL, column, first, second);
#pragma GCC unroll 14
    for (int64_t i = 0; i < ROWS; i++) {
      const float factor = x[i * step];
      sums[i][0] += first * factor;
      sums[i][1] += second * factor;
    }
    x += stride;
  };
  for (int64_t k = 0; k < even; k += STRIDE) {
    for (int64_t stretch = 0; stretch < part.stretches; stretch++) __builtin_prefetch(reinterpret_cast<const void*>(ahead + stretch * part.gap));
    ahead += LINE;
#pragma GCC unroll 4
    for (int64_t i = 0; i < STRIDE; i++) multiply(k + i);
  }
  for (int64_t k = even; k < part.depth; k++) multiply(k);
#pragma GCC unroll 14
  for (int64_t i = 0; i < ROWS; i++) {
    std::memcpy(part.sums + i * PANEL + column, &sums[i][0], sizeof(Vector));
    std::memcpy(part.sums + i * PANEL + HALF + column, &sums[i][1], sizeof(Vector));
  }
}

template <typename Vector, int64_t MOST, typename Weight>
INLINE void multiplyPart(const Part<Weight>& part, int64_t rows, int64_t column) {
  if constexpr (MOST > 1)
    if (rows < MOST) return multiplyPart<Vector, MOST - 1>(part, rows, column);
  multiplyBy<Vector, MOST>(part, column);
}

// As many rows as there are registers for.
constexpr int64_t ROWS_AVX512 = 14, ROWS_AVX2 = 6;

WITH_AVX512 void multiplyAvx512(const Part<float>& part, int64_t rows) { multiplyPart<Sixteen, ROWS_AVX512>(part, rows, 0); }
WITH_AVX512 void multiplyAvx512(const Part<c10::BFloat16>& part, int64_t rows) {
  multiplyPart<Sixteen, ROWS_AVX512>(part, rows, 0);
}
WITH_AVX2 void multiplyAvx2(const Part<float>& part, int64_t rows, int64_t column) {
  multiplyPart<Eight, ROWS_AVX2>(part, rows, column);
}
WITH_AVX2 void multiplyAvx2(const Part<c10::BFloat16>& part, int64_t rows, int64_t column) {
  multiplyPart<Eight, ROWS_AVX2>(part, rows, column);
}

// To the nearest number of bfloat16, to the even one of two; NaN stays NaN.
WITH_AVX512 INLINE SixteenHalves rounded(Sixteen value) {
  const SixteenWords words = (SixteenWords)value, up = (words + 0x7fffu + ((words >> 16) & 1u)) >> 16;
  return __builtin_convertvector(value == value ? up : SixteenWords{} + 0x7fc0u, SixteenHalves);
}

// Whole panels of sums to rows of y that lie `step` apart; no bias where it is nullptr.
WITH_AVX512 void finishAvx512(const float* sums, int64_t rows, const c10::BFloat16* bias, c10::BFloat16* y, int64_t step) {
  Sixteen first{}, second{};
  if (bias != nullptr) {
    first = (Sixteen)(__builtin_convertvector(halvesAt(bias), SixteenWords) << 16);
    second = (Sixteen)(__builtin_convertvector(halvesAt(bias + HALF), SixteenWords) << 16);
  }
  for (int64_t row = 0; row < rows; row++, sums += PANEL, y += step) {
    Sixteen low, high;
    readBoth(sums, 0, low, high);
    const SixteenHalves halves[2] = {rounded(low + first), rounded(high + second)};
    std::memcpy(y, halves, sizeof halves);
  }
}

PanelKernel found() {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return PanelKernel::avx512;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? PanelKernel::avx2 : PanelKernel::none;
}

#else

PanelKernel found() { return PanelKernel::none; }

#endif

PanelKernel kernel = found();

// Rows that are multiplied together.
int64_t rowsTogether() {
#if defined(__x86_64__) && defined(__GNUC__)
  return kernel == PanelKernel::avx512 ? ROWS_AVX512 : ROWS_AVX2;
#else
  return 1;
#endif
}

// Passes over a panel: AVX2 has registers for half of its outputs.
int64_t passes() { return kernel == PanelKernel::avx512 ? 1 : 2; }

template <typename Weight>
void multiplyByKernel(const Part<Weight>& part, int64_t rows, int64_t pass) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (kernel == PanelKernel::avx512) multiplyAvx512(part, rows);
  else multiplyAvx2(part, rows, pass * (HALF / 2));
#endif
}

// Numbers of a matrix: of a row `ofRow` after each other, of a column `ofColumn`. One of the two is 1.
template <typename Number>
struct Matrix {
  const Number* at;
  int64_t rows, columns;
  int64_t ofRow, ofColumn;

  Matrix columnsFrom(int64_t first, int64_t count) const { return {at + first * ofRow, rows, count, ofRow, ofColumn}; }
  Matrix rowsFrom(int64_t first, int64_t count) const { return {at + first * ofColumn, count, columns, ofRow, ofColumn}; }
};

template <typename Number>
Matrix<Number> matrixOf(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<Number>(), tensor.size(0), tensor.size(1), tensor.stride(1), tensor.stride(0)};
}

template <typename Number>
INLINE void copyWide(const Number* from, int64_t runs, int64_t step, int64_t count, float* to, int64_t toStep) {
  const int64_t even = count / LANES * LANES;
  for (int64_t run = 0; run < runs; run++, from += step, to += toStep) {
    for (int64_t at = 0; at < even; at += LANES) store(to + at, load(from + at));
    for (int64_t at = even; at < count; at++) to[at] = static_cast<float>(from[at]);
  }
}

// So many runs of `count` numbers.
PER_PROCESSOR void widen(const float* from, int64_t runs, int64_t step, int64_t count, float* to, int64_t toStep) {
  copyWide(from, runs, step, count, to, toStep);
}
PER_PROCESSOR void widen(const c10::BFloat16* from, int64_t runs, int64_t step, int64_t count, float* to, int64_t toStep) {
  copyWide(from, runs, step, count, to, toStep);
}

// The first `count` sums of each row, to rows of y that lie `step` apart.
template <typename Number>
INLINE void finishRows(const float* sums, int64_t rows, const Number* bias, int64_t count, Number* y, int64_t step) {
  for (int64_t row = 0; row < rows; row++, sums += PANEL, y += step) {
    if (count == PANEL) {
      for (int64_t at = 0; at < PANEL; at += LANES) store(y + at, load(sums + at) + (bias ? load(bias + at) : Floats{}));
      continue;
    }
    for (int64_t at = 0; at < count; at++) y[at] = static_cast<Number>(sums[at] + (bias ? static_cast<float>(bias[at]) : 0));
  }
}

PER_PROCESSOR void finish(const float* sums, int64_t rows, const float* bias, int64_t count, float* y, int64_t step) {
  finishRows(sums, rows, bias, count, y, step);
}
PER_PROCESSOR void finishHalves(const float* sums, int64_t rows, const c10::BFloat16* bias, int64_t count, c10::BFloat16* y,
                                int64_t step) {
  finishRows(sums, rows, bias, count, y, step);
}
void finish(const float* sums, int64_t rows, const c10::BFloat16* bias, int64_t count, c10::BFloat16* y, int64_t step) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (kernel == PanelKernel::avx512 && count == PANEL) return finishAvx512(sums, rows, bias, y, step);
#endif
  finishHalves(sums, rows, bias, count, y, step);
}

// Some inputs of x with panels of them. Before the first of all inputs there are no sums; after the last of them, sums become y.
template <typename Number, typename Weight>
struct Product {
  Matrix<Number> x;
  const Weight* panels;
  int64_t outputs;
  const Number* bias;  // none where it is nullptr
  Number* y;
  int64_t step;  // from row to row of y
  // Of each panel so many rows of sums, where there are inputs before or after these.
  float* sums;
  bool isFirst, isLast;
};

// What one thread multiplies.
template <typename Number, typename Weight>
class Multiplier {
 public:
  explicit Multiplier(const Product<Number, Weight>& product) : product_(product), inputs_(product.x.columns) {}

  // Rows first … end of x, which the next panels are multiplied with.
  void take(int64_t first, int64_t end) {
    const Matrix<Number>& x = product_.x;
    first_ = first;
    rows_ = end - first;
    const Number* const own = x.at + first * x.ofColumn;
    if constexpr (std::is_same_v<Number, float>) {
      step_ = x.ofColumn;
      stride_ = x.ofRow;
      from_ = own;
      // At a step of 4096 bytes all rows would share a few lines of the cache.
      if (stride_ == 1 && step_ % 1024 != 0) return;
    }
    // As they lie in x, rows or columns side by side.
    thread_local std::vector<float> room;
    const bool isTurned = x.ofRow != 1;
    const int64_t runs = isTurned ? inputs_ : rows_, count = isTurned ? rows_ : inputs_;
    const int64_t apart = count + ((count + LANES) % 1024 == 0 ? 2 : 1) * LANES;
    if (static_cast<int64_t>(room.size()) < runs * apart) room.resize(runs * apart);
    widen(own, runs, isTurned ? x.ofRow : x.ofColumn, count, room.data(), apart);
    from_ = room.data();
    step_ = isTurned ? 1 : apart;
    stride_ = isTurned ? apart : 1;
  }

  // These rows with a panel, while panel `next` is asked for; -1 for none.
  void multiply(int64_t panel, int64_t next) {
    thread_local std::vector<float> room;
    float* sums = product_.sums;
    if (sums == nullptr) {
      if (static_cast<int64_t>(room.size()) < rows_ * PANEL) room.resize(rows_ * PANEL);
      sums = room.data();
    } else {
      sums += (panel * product_.x.rows + first_) * PANEL;
    }
    const int64_t size = inputs_ * PANEL;
    for (int64_t depth = 0; depth < inputs_; depth += DEPTH) {
      // The rest of this panel, or the front of the next one: both fit into a core's cache beside what is read now.
      const int64_t further = depth + DEPTH < inputs_ ? depth + DEPTH : 0;
      const int64_t asked = further == 0 && next < 0 ? 0 : std::min(DEPTH, inputs_ - further);
      multiplyGroups(panel, depth, sums, product_.panels + (further == 0 ? next : panel) * size + further * PANEL, asked);
    }
    if (!product_.isLast) return;
    const int64_t at = panel * PANEL, count = std::min(PANEL, product_.outputs - at);
    finish(sums, rows_, product_.bias == nullptr ? nullptr : product_.bias + at, count,
           product_.y + first_ * product_.step + at, product_.step);
  }

 private:
  // All rows with DEPTH inputs of a panel, while panels of `asked` inputs are asked for.
  void multiplyGroups(int64_t panel, int64_t depth, float* sums, const Weight* ahead, int64_t asked) {
    const int64_t count = std::min(DEPTH, inputs_ - depth), groups = (rows_ + rowsTogether() - 1) / rowsTogether();
    const int64_t parts = groups * passes(), steps = std::max<int64_t>(1, count / STRIDE);
    const int64_t lines = asked * PANEL * static_cast<int64_t>(sizeof(Weight)) / LINE;
    const int64_t stretches = (lines + parts * steps - 1) / (parts * steps), linesOfPart = stretches * steps;
    for (int64_t at = 0; at < parts; at++) {
      const int64_t group = at / passes(), row = rows_ * group / groups, some = rows_ * (group + 1) / groups - row;
      const Part<Weight> part{from_ + row * step_ + depth * stride_,
                              step_,
                              stride_,
                              product_.panels + panel * inputs_ * PANEL + depth * PANEL,
                              count,
                              sums + row * PANEL,
                              product_.isFirst && depth == 0,
                              reinterpret_cast<uintptr_t>(ahead) + at * linesOfPart * LINE,
                              at * linesOfPart < lines ? stretches : 0,
                              steps * LINE};
      multiplyByKernel(part, some, at % passes());
    }
  }

  const Product<Number, Weight>& product_;
  const int64_t inputs_;
  int64_t first_ = 0, rows_ = 0, step_ = 0, stride_ = 1;
  const float* from_ = nullptr;
};

// The tasks that a thread does: half of its share of what is left at a time, of the same rows, so that it seldom takes others
// and all threads end together.
struct Tasks {
  std::atomic<int64_t>& next;
  const int64_t all, panels, threads;
  int64_t at = 0, end = 0;

  // Takes a stretch. @returns whether there was one
  bool claim() {
    at = end = next.load(std::memory_order_relaxed);
    do {
      if (at >= all) return false;
      end = at + std::clamp<int64_t>((all - at) / (2 * threads), 1, panels - at % panels);
    } while (!next.compare_exchange_weak(at, end, std::memory_order_relaxed));
    return true;
  }

  // `all` where none is left.
  int64_t another() { return at < end || claim() ? at++ : all; }

  // The one that will come next. While there are enough for all threads it is made sure of; then it is a guess, and no thread
  // holds what another could do.
  int64_t upcoming() {
    if (at == end && all - next.load(std::memory_order_relaxed) > 2 * threads) claim();
    return at < end ? at : next.load(std::memory_order_relaxed);
  }
};

template <typename Number, typename Weight>
void multiplyPanels(const Product<Number, Weight>& product) {
  const int64_t rows = product.x.rows, inputs = product.x.columns, panels = inWholePanels(product.outputs) / PANEL;
  const int64_t most = std::clamp(KEPT / inputs, LEAST_KEPT, MOST_KEPT), together = rowsTogether();
  // As evenly as whole groups of rows allow: a few rows at the end would read all panels again.
  const int64_t even = (rows + most - 1) / most, kept = ((rows + even - 1) / even + together - 1) / together * together;
  // Some rows with one panel each: all rows that are kept, then the next ones.
  const int64_t tasks = (rows + kept - 1) / kept * panels;
  std::atomic<int64_t> next{0};
  inThreads(std::min(tasks, rows * inputs * product.outputs / SMALL_PRODUCT), [&](int64_t, int64_t threads) {
    Tasks own{next, tasks, panels, threads};
    Multiplier<Number, Weight> multiplier(product);
    int64_t taken = -1;
    for (int64_t task = own.another(); task < tasks; task = own.another()) {
      const int64_t then = own.upcoming(), block = task / panels;
      if (block != taken) multiplier.take(block * kept, std::min(rows, (block + 1) * kept));
      taken = block;
      multiplier.multiply(task % panels, then < tasks ? then % panels : -1);
    }
  });
}

// Words of a panel that belong to one input.
template <typename Weight>
constexpr int64_t WORDS = std::is_same_v<Weight, float> ? PANEL : HALF;

// Where a panel's output lies among the numbers of an input.
template <typename Weight>
constexpr int64_t placeOf(int64_t output) {
  return std::is_same_v<Weight, float> ? output : 2 * (output % HALF) + output / HALF;
}

// Eight words of a panel from eight numbers of its outputs; of bfloat16 beside those of the outputs half a panel further.
template <typename Weight>
INLINE EightWords wordsOf(const float* from, int64_t) {
  EightWords words;
  std::memcpy(&words, from, sizeof words);
  return words;
}
template <typename Weight>
INLINE EightWords wordsOf(const c10::BFloat16* from, int64_t further) {
  if constexpr (std::is_same_v<Weight, float>) return (EightWords)widened(from);
  EightHalves low, high;
  std::memcpy(&low, from, sizeof low);
  std::memcpy(&high, from + further, sizeof high);
  return __builtin_convertvector(low, EightWords) | (__builtin_convertvector(high, EightWords) << 16);
}

#if defined(__clang__)
#define ZIPPED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define ZIPPED(a, b, ...) __builtin_shuffle(a, b, EightIntegers{__VA_ARGS__})
#endif

// Rows become columns: three times over, the rows of the upper half come between those of the lower one.
INLINE void turn(EightWords rows[8]) {
#pragma GCC unroll 3
  for (int64_t round = 0; round < 3; round++) {
    EightWords turned[8];
#pragma GCC unroll 4
    for (int64_t i = 0; i < 4; i++) {
      turned[2 * i] = ZIPPED(rows[i], rows[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      turned[2 * i + 1] = ZIPPED(rows[i], rows[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < 8; i++) rows[i] = turned[i];
  }
}

// `inputs` inputs of a whole panel's outputs: of one input they lie side by side, or of one output its inputs.
template <typename Number, typename Weight>
INLINE void fillWhole(const Matrix<Number>& weight, Weight* panel) {
  const int64_t inputs = weight.columns, apart = weight.ofColumn;
  uint32_t* const words = reinterpret_cast<uint32_t*>(panel);
  int64_t k = 0;
  if (apart == 1) {
    for (; k < inputs; k++)
      for (int64_t i = 0; i < WORDS<Weight>; i += 8) {
        const EightWords found = wordsOf<Weight>(weight.at + k * weight.ofRow + i, HALF);
        std::memcpy(words + k * WORDS<Weight> + i, &found, sizeof found);
      }
    return;
  }
  for (; k + 8 <= inputs; k += 8)
    for (int64_t i = 0; i < WORDS<Weight>; i += 8) {
      EightWords rows[8];
      for (int64_t j = 0; j < 8; j++) rows[j] = wordsOf<Weight>(weight.at + (i + j) * apart + k, HALF * apart);
      turn(rows);
      for (int64_t j = 0; j < 8; j++) std::memcpy(words + (k + j) * WORDS<Weight> + i, &rows[j], sizeof rows[j]);
    }
  for (; k < inputs; k++)
    for (int64_t i = 0; i < PANEL; i++) panel[k * PANEL + placeOf<Weight>(i)] = weight.at[i * apart + k];
}

PER_PROCESSOR void fill(const Matrix<float>& weight, float* panel) { fillWhole(weight, panel); }
PER_PROCESSOR void fill(const Matrix<c10::BFloat16>& weight, c10::BFloat16* panel) { fillWhole(weight, panel); }
PER_PROCESSOR void fill(const Matrix<c10::BFloat16>& weight, float* panel) { fillWhole(weight, panel); }

// weight: [out, in]
template <typename Number, typename Weight>
void fillPanels(const Matrix<Number>& weight, Weight* panels) {
  const int64_t outputs = weight.rows, inputs = weight.columns;
  const int64_t grain = std::max<int64_t>(1, SMALL_FILL / (inputs * PANEL));
  parallelFor(inWholePanels(outputs) / PANEL, grain, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; panel++) {
      Weight* const own = panels + panel * PANEL * inputs;
      const int64_t count = std::min(PANEL, outputs - panel * PANEL);
      const Matrix<Number> from = weight.rowsFrom(panel * PANEL, count);
      if (count == PANEL) {
        fill(from, own);
        continue;
      }
      std::fill_n(own, PANEL * inputs, Weight(0));
      for (int64_t k = 0; k < inputs; k++)
        for (int64_t i = 0; i < count; i++) own[k * PANEL + placeOf<Weight>(i)] = from.at[i * from.ofColumn + k * from.ofRow];
    }
  });
}

template <typename Number>
at::Tensor multiplied(const at::Tensor& x, const at::Tensor& panels, const std::optional<at::Tensor>& bias) {
  const int64_t outputs = panels.size(0);
  at::Tensor y = at::detail::empty_cpu({x.size(0), outputs}, x.scalar_type());
  if (y.numel() == 0) return y;
  multiplyPanels(Product<Number, Number>{matrixOf<Number>(x), panels.const_data_ptr<Number>(), outputs,
                                 bias.has_value() ? bias->const_data_ptr<Number>() : nullptr, y.mutable_data_ptr<Number>(), outputs,
                                 nullptr, true, true});
  return y;
}

// Pieces of so many at most, as even as multiples of `step` allow.
int64_t evenly(int64_t count, int64_t most, int64_t step) {
  const int64_t pieces = (count + most - 1) / most, each = (count + pieces - 1) / pieces;
  return (each + step - 1) / step * step;
}

// Lies as one of the two orders of a matrix.
at::Tensor inOneOrder(const at::Tensor& matrix) {
  return matrix.stride(0) == 1 || matrix.stride(1) == 1 ? matrix : matrix.contiguous();
}

}  // namespace

PanelKernel bestPanelKernel() { return found(); }
PanelKernel panelKernel() { return kernel; }
void usePanelKernel(PanelKernel other) { kernel = other; }

at::Tensor toPanels(const at::Tensor& weight) {
  const at::Tensor own = inOneOrder(weight.detach());
  const int64_t outputs = weight.size(0);
  at::Tensor panels = at::empty({inWholePanels(outputs), weight.size(1), 1}, own.options()).narrow(0, 0, outputs);
  if (own.scalar_type() == at::kFloat) fillPanels(matrixOf<float>(own), panels.mutable_data_ptr<float>());
  else fillPanels(matrixOf<c10::BFloat16>(own), panels.mutable_data_ptr<c10::BFloat16>());
  return panels;
}

at::Tensor multiplyByPanels(const at::Tensor& x, const at::Tensor& panels, const std::optional<at::Tensor>& bias) {
  return x.scalar_type() == at::kFloat ? multiplied<float>(x, panels, bias) : multiplied<c10::BFloat16>(x, panels, bias);
}

at::Tensor productOfHalves(const at::Tensor& a, const at::Tensor& b, const std::optional<at::Tensor>& bias) {
  using Half = c10::BFloat16;
  const at::Tensor left = inOneOrder(a.detach()), right = inOneOrder(b.detach());
  const int64_t rows = a.size(0), inputs = a.size(1), outputs = b.size(1);
  at::Tensor y = at::detail::empty_cpu({rows, outputs}, at::kBFloat16);
  const at::Tensor offset = bias.has_value() ? bias->detach().contiguous() : at::Tensor();
  // Few inputs and outputs are in panels at a time, widened, but enough for all threads; both are cut evenly. Where that leaves
  // inputs for another time, sums wait in float32.
  const int64_t depth = evenly(inputs, MOST_INPUTS, 8);
  const int64_t width = evenly(outputs, std::max<int64_t>(2 * at::get_num_threads() * PANEL, MOST_IN_PANELS / depth), PANEL);
  const at::Tensor panels = at::detail::empty_cpu({width * depth}, at::kFloat);
  const bool isWhole = depth >= inputs;
  const at::Tensor sums = isWhole ? at::Tensor() : at::detail::empty_cpu({width * rows}, at::kFloat);
  const Matrix<Half> x = matrixOf<Half>(left), weight = matrixOf<Half>(right.t());
  for (int64_t n = 0; n < outputs; n += width) {
    const int64_t count = std::min(width, outputs - n);
    for (int64_t k = 0; k < inputs; k += depth) {
      const int64_t some = std::min(depth, inputs - k);
      fillPanels(weight.rowsFrom(n, count).columnsFrom(k, some), panels.mutable_data_ptr<float>());
      multiplyPanels(Product<Half, float>{x.columnsFrom(k, some), panels.const_data_ptr<float>(), count,
                                   offset.defined() ? offset.const_data_ptr<Half>() + n : nullptr, y.mutable_data_ptr<Half>() + n,
                                   outputs, isWhole ? nullptr : sums.mutable_data_ptr<float>(), k == 0, k + some == inputs});
    }
  }
  return y;
}

}  // namespace posttrain
