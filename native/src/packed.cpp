// Products of some rows with a weight that stays as it is, as in sampling: of a few rows to some hundreds. There a library's
// product waits for the weights to come from memory and then multiplies; here the next part of the weight is asked for while
// this one is multiplied, so that the longer of the two counts and not their sum. `npm run bench -- parts` measures it.
//
// A packed weight is a tensor [out, in, 1] whose storage holds panels of 32 outputs one after the other, the last one filled
// up with zeros; in a panel the 32 numbers of an input lie together. Numbers of bfloat16 are widened as they are read: output
// i lies beside output i + 16, in the lower and the upper half of a word, and each is widened by one instruction. Each result is the sum over the inputs in their order, whatever other rows there are and whichever thread computes it: a row
// gets the same bits in every batch.
//
// Where the processor has no instructions for it, or others that are faster, weights are packed by oneDNN.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <type_traits>
#include <vector>

#include "linear.h"
#include "napi.h"
#include "parallel.h"
#include "rows.h"
#include "vectors.h"

namespace posttrain {
namespace {

// Outputs of a panel.
constexpr int64_t PANEL = 32, HALF = PANEL / 2;
// Inputs that are summed up before other rows take their turn: of a longer panel the core's cache would lose the front.
constexpr int64_t DEPTH = 1024;
// Inputs after which the next panel is asked for again.
constexpr int64_t STRIDE = 4;
constexpr int64_t LINE = 64;
// Numbers of x that stay in a core's cache while the panels pass, and the rows that they are at least and at most.
constexpr int64_t KEPT = int64_t{1} << 17;
constexpr int64_t LEAST_KEPT = 56, MOST_KEPT = 252;
// Multiplications that are done before a second thread has begun.
constexpr int64_t SMALL_PRODUCT = int64_t{1} << 17;

// `rows` of x with a part of a panel.
template <typename Weight>
struct Part {
  const float* x;
  int64_t step;  // from row to row
  const Weight* weight;
  int64_t depth;
  float* sums;  // [rows, PANEL]
  bool isFirst;  // or added to what the sums are
  // What is asked for meanwhile: after every STRIDE inputs a line of each of so many stretches, which lie `gap` bytes apart.
  // Memory comes faster from several places at once.
  const char* ahead;
  int64_t stretches, gap;
};

#if defined(__x86_64__) && defined(__GNUC__)

#define WITH_AVX2 __attribute__((target("avx2,fma")))
#define WITH_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))

typedef float Sixteen __attribute__((vector_size(64)));
typedef uint32_t SixteenWords __attribute__((vector_size(64)));
template <typename Vector>
INLINE void read(const float* from, Vector& to) { std::memcpy(&to, from, sizeof to); }

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
  const int64_t step = part.step, even = part.depth / STRIDE * STRIDE;
  const float* const x = part.x;
  const Weight* const weight = part.weight;
  const char* ahead = part.ahead;
  Vector sums[ROWS][2] = {};
  if (!part.isFirst)
    for (int64_t i = 0; i < ROWS; i++)
      for (int64_t half = 0; half < 2; half++) read(part.sums + i * PANEL + column + half * HALF, sums[i][half]);
  const auto multiply = [&](int64_t k) __attribute__((always_inline)) {
    Vector first, second;
    readBoth(weight + k * PANEL, column, first, second);
#pragma GCC unroll 14
    for (int64_t i = 0; i < ROWS; i++) {
      const float factor = x[i * step + k];
      sums[i][0] += first * factor;
      sums[i][1] += second * factor;
    }
  };
  for (int64_t k = 0; k < even; k += STRIDE) {
    for (int64_t stretch = 0; stretch < part.stretches; stretch++) __builtin_prefetch(ahead + stretch * part.gap);
    ahead += LINE;
#pragma GCC unroll 4
    for (int64_t i = 0; i < STRIDE; i++) multiply(k + i);
  }
  for (int64_t k = even; k < part.depth; k++) multiply(k);
  for (int64_t i = 0; i < ROWS; i++)
    for (int64_t half = 0; half < 2; half++)
      std::memcpy(part.sums + i * PANEL + column + half * HALF, &sums[i][half], sizeof(Vector));
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

enum class Instructions { none, avx2, avx512 };

Instructions found() {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return Instructions::avx512;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? Instructions::avx2 : Instructions::none;
}

#else

enum class Instructions { none, avx2, avx512 };

Instructions found() { return Instructions::none; }

#endif

Instructions instructions = found();

// Rows that are multiplied together.
int64_t rowsTogether() {
#if defined(__x86_64__) && defined(__GNUC__)
  return instructions == Instructions::avx512 ? ROWS_AVX512 : ROWS_AVX2;
#else
  return 1;
#endif
}

// Registers of outputs of a panel, in pairs.
int64_t passes() { return instructions == Instructions::avx512 ? 1 : 2; }

template <typename Weight>
void multiplyPart(const Part<Weight>& part, int64_t rows, int64_t pass) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (instructions == Instructions::avx512) multiplyAvx512(part, rows);
  else multiplyAvx2(part, rows, pass * (HALF / 2));
#endif
}

PER_PROCESSOR void widen(const c10::BFloat16* from, int64_t count, float* to) {
  const int64_t even = count / LANES * LANES;
  for (int64_t at = 0; at < even; at += LANES) store(to + at, load(from + at));
  for (int64_t at = even; at < count; at++) to[at] = static_cast<float>(from[at]);
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
PER_PROCESSOR void finish(const float* sums, int64_t rows, const c10::BFloat16* bias, int64_t count, c10::BFloat16* y,
                          int64_t step) {
  finishRows(sums, rows, bias, count, y, step);
}

int64_t panelsOf(int64_t outputs) { return (outputs + PANEL - 1) / PANEL; }

// What one thread multiplies: panels of a weight with some of the rows of x.
template <typename Number>
class Multiplier {
 public:
  Multiplier(const at::Tensor& x, const at::Tensor& packed, const std::optional<at::Tensor>& bias, at::Tensor& y)
      : inputs_(x.size(1)),
        outputs_(packed.size(0)),
        x_(x.const_data_ptr<Number>()),
        weight_(packed.const_data_ptr<Number>()),
        bias_(bias.has_value() ? bias->const_data_ptr<Number>() : nullptr),
        y_(y.mutable_data_ptr<Number>()) {}

  // Rows first … end of x, which the next panels are multiplied with.
  void take(int64_t first, int64_t end) {
    first_ = first;
    rows_ = end - first;
    const Number* const own = x_ + first * inputs_;
    thread_local std::vector<float> room, sums;
    sums.resize(rows_ * PANEL);
    sums_ = sums.data();
    // At a step of 4096 bytes all rows would share a few lines of the cache.
    if constexpr (std::is_same_v<Number, float>) {
      from_ = own;
      step_ = inputs_;
      if (inputs_ % 1024 != 0) return;
    }
    step_ = inputs_ + LANES;
    room.resize(rows_ * step_);
    for (int64_t row = 0; row < rows_; row++) {
      if constexpr (std::is_same_v<Number, float>) std::copy_n(own + row * inputs_, inputs_, room.data() + row * step_);
      else widen(own + row * inputs_, inputs_, room.data() + row * step_);
    }
    from_ = room.data();
  }

  // y of these rows and of a panel, while panel `next` is asked for; -1 for none.
  void multiply(int64_t panel, int64_t next) {
    const int64_t groups = (rows_ + rowsTogether() - 1) / rowsTogether(), size = inputs_ * PANEL;
    const Number* ahead = weight_ + std::max<int64_t>(next, 0) * size;
    for (int64_t depth = 0; depth < inputs_; depth += DEPTH) {
      const int64_t count = std::min(DEPTH, inputs_ - depth);
      const Number* const own = weight_ + panel * size + depth * PANEL;
      multiplyGroups(own, groups, depth, count, next < 0 ? nullptr : reinterpret_cast<const char*>(ahead));
      ahead += count * PANEL;
    }
    const int64_t at = panel * PANEL, count = std::min(PANEL, outputs_ - at);
    finish(sums_, rows_, bias_ == nullptr ? nullptr : bias_ + at, count, y_ + first_ * outputs_ + at, outputs_);
  }

 private:
  // All rows with `count` inputs of a panel, while so many of the next one are asked for.
  void multiplyGroups(const Number* weight, int64_t groups, int64_t depth, int64_t count, const char* ahead) {
    const int64_t parts = groups * passes(), steps = std::max<int64_t>(1, count / STRIDE);
    const int64_t lines = count * PANEL * static_cast<int64_t>(sizeof(Number)) / LINE, stretches = (lines + parts * steps - 1) / (parts * steps);
    const int64_t linesOfPart = stretches * steps;
    for (int64_t at = 0; at < parts; at++) {
      const int64_t group = at / passes(), row = rows_ * group / groups, some = rows_ * (group + 1) / groups - row;
      const bool isAsking = ahead != nullptr && at * linesOfPart < lines;
      const Part<Number> part{from_ + row * step_ + depth,
                              step_,
                              weight,
                              count,
                              sums_ + row * PANEL,
                              depth == 0,
                              ahead + at * linesOfPart * LINE,
                              isAsking ? stretches : 0,
                              steps * LINE};
      multiplyPart(part, some, at % passes());
    }
  }

  const int64_t inputs_, outputs_;
  const Number *const x_, *const weight_, *const bias_;
  Number* const y_;
  int64_t first_ = 0, rows_ = 0, step_ = 0;
  const float* from_ = nullptr;
  float* sums_ = nullptr;
};

template <typename Number>
void multiplyPanels(const at::Tensor& x, const at::Tensor& packed, const std::optional<at::Tensor>& bias, at::Tensor& y) {
  const int64_t rows = x.size(0), inputs = x.size(1), panels = panelsOf(packed.size(0));
  const int64_t kept = std::clamp(KEPT / inputs, LEAST_KEPT, MOST_KEPT);
  const int64_t tasks = (rows + kept - 1) / kept * panels;
  std::atomic<int64_t> next{0};
  inThreads(std::min(tasks, rows * inputs * packed.size(0) / SMALL_PRODUCT), [&](int64_t, int64_t) {
    const auto another = [&] { return next.fetch_add(1, std::memory_order_relaxed); };
    Multiplier<Number> multiplier(x, packed, bias, y);
    int64_t taken = -1;
    // The next task is chosen before this one is done, so that its panel is known.
    for (int64_t task = another(), then; task < tasks; task = then) {
      then = another();
      const int64_t block = task / panels;
      if (block != taken) multiplier.take(block * kept, std::min(rows, (block + 1) * kept));
      taken = block;
      multiplier.multiply(task % panels, then < tasks ? then % panels : -1);
    }
  });
}

// Where a panel's output lies among the numbers of an input.
template <typename Number>
int64_t placeOf(int64_t output) {
  if constexpr (std::is_same_v<Number, float>) return output;
  else return 2 * (output % HALF) + output / HALF;
}

template <typename Number>
void fillPanels(const at::Tensor& weight, at::Tensor& packed) {
  const int64_t outputs = weight.size(0), inputs = weight.size(1);
  const Number* const from = weight.const_data_ptr<Number>();
  Number* const to = packed.mutable_data_ptr<Number>();
  parallelFor(panelsOf(outputs), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; panel++) {
      Number* const own = to + panel * PANEL * inputs;
      const int64_t count = std::min(PANEL, outputs - panel * PANEL);
      // A line of each output after the other.
      for (int64_t first = 0; first < inputs; first += LANES) {
        const int64_t last = std::min(inputs, first + LANES);
        for (int64_t i = 0; i < PANEL; i++) {
          const Number* const row = from + (panel * PANEL + i) * inputs;
          const int64_t at = placeOf<Number>(i);
          for (int64_t k = first; k < last; k++) own[k * PANEL + at] = i < count ? row[k] : Number(0);
        }
      }
    }
  });
}

bool packsPanels(at::ScalarType dtype) {
  return instructions != Instructions::none && (dtype == at::kFloat || (dtype == at::kBFloat16 && widensProducts()));
}

}  // namespace

bool isPacked(const at::Tensor& weight) { return weight.is_mkldnn() || weight.dim() == 3; }

// pack_linear(weight [out, in], rows): for products with about so many rows.
at::Tensor packLinear(const at::Tensor& weight, int64_t rows) {
  TORCH_CHECK(weight.dim() == 2 && weight.is_cpu() && weight.numel() > 0, "expected a weight [out, in] on the CPU, received ",
              weight.sizes(), " on ", weight.device());
  const at::NoGradGuard withoutGradient;
  const at::ScalarType dtype = weight.scalar_type();
  if (!packsPanels(dtype)) {
    static const auto call = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("mkldnn::_reorder_linear_weight", "")
                                 .typed<at::Tensor(const at::Tensor&, std::optional<c10::SymInt>)>();
    return call.call(weight, c10::SymInt(rows));
  }
  const int64_t outputs = weight.size(0), inputs = weight.size(1);
  at::Tensor packed = at::empty({panelsOf(outputs) * PANEL, inputs, 1}, weight.options().requires_grad(false)).narrow(0, 0, outputs);
  const at::Tensor plain = weight.contiguous();
  if (dtype == at::kFloat) fillPanels<float>(plain, packed);
  else fillPanels<c10::BFloat16>(plain, packed);
  return packed;
}

at::Tensor packedLinear(const at::Tensor& x, const at::Tensor& packed, const std::optional<at::Tensor>& bias) {
  TORCH_CHECK(isPacked(packed), "expected a weight of pack_linear, received ", packed.sizes());
  refuseGradient("packed_linear", {x, packed});
  if (packed.is_mkldnn()) return oneDnnProduct(x, packed, bias);
  const at::ScalarType dtype = packed.scalar_type();
  const int64_t outputs = packed.size(0), inputs = packed.size(1);
  TORCH_CHECK(x.dim() == 2 && x.is_cpu() && x.scalar_type() == dtype && x.size(1) == inputs, "expected x [rows, ", inputs, "] of ",
              dtype, " on the CPU, received ", x.sizes(), " of ", x.scalar_type());
  TORCH_CHECK(!bias.has_value() || (bias->dim() == 1 && bias->size(0) == outputs && bias->scalar_type() == dtype && bias->is_cpu()),
              "expected a bias of ", outputs, " numbers of ", dtype);
  TORCH_CHECK(packed.is_contiguous() && packed.size(2) == 1 && instructions != Instructions::none &&
                  packed.storage_offset() == 0 &&
                  packed.storage().nbytes() >= static_cast<size_t>(panelsOf(outputs) * PANEL * inputs * packed.itemsize()),
              "expected a weight of pack_linear, received a tensor ", packed.sizes());
  at::Tensor y = emptyRows(x.size(0), outputs, dtype);
  if (y.numel() == 0) return y;
  const at::Tensor plain = x.contiguous();
  const std::optional<at::Tensor> offset = bias.has_value() ? std::optional(bias->contiguous()) : bias;
  if (dtype == at::kFloat) multiplyPanels<float>(plain, packed, offset, y);
  else multiplyPanels<c10::BFloat16>(plain, packed, offset, y);
  return y;
}

namespace {

constexpr const char* NAMES[] = {"oneDnn", "avx2", "avx512"};

// usePackedKernel(name) → what was used before
napi_value setKernel(napi_env env, napi_callback_info info) {
  return guard(env, "usePackedKernel", [&] {
    const Arguments arguments(env, info);
    const std::string name = asString(env, arguments[0]);
    const auto known = std::find(std::begin(NAMES), std::end(NAMES), name);
    const auto asked = static_cast<Instructions>(known - std::begin(NAMES));
    TORCH_CHECK(known != std::end(NAMES) && asked <= found(), "expected one of oneDnn, avx2 and avx512 that the processor has, received ", name);
    const char* const before = NAMES[static_cast<int>(instructions)];
    instructions = asked;
    return fromString(env, before);
  });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def("pack_linear(Tensor weight, int rows) -> Tensor", &packLinear);
  library.def("packed_linear(Tensor input, Tensor packed, Tensor? bias=None) -> Tensor", &packedLinear);
}

void definePacked(napi_env env, napi_value exports) { define(env, exports, "usePackedKernel", setKernel); }

}  // namespace posttrain
