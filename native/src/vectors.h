// Sixteen floats at a time, in whatever registers the processor has: a function marked with PER_PROCESSOR is compiled for
// several of them, and the best one is taken when the addon is loaded.
#pragma once

#include <c10/util/BFloat16.h>

#include <cmath>
#include <cstdint>
#include <cstring>

// The choice when loading is glibc's; g++ 11 does not know levels of processors here, and takes multiplication and addition
// together in the first clone alone.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define PER_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PER_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define PER_PROCESSOR
#endif
#define INLINE inline __attribute__((always_inline))

namespace posttrain {

constexpr int64_t LANES = 16;
typedef float Eight __attribute__((vector_size(32)));
typedef int32_t EightIntegers __attribute__((vector_size(32)));
typedef uint32_t EightWords __attribute__((vector_size(32)));
typedef uint16_t EightHalves __attribute__((vector_size(16)));
typedef float Four __attribute__((vector_size(16)));

// Two registers of AVX2. One vector of sixteen would be one register of AVX-512; but where there are none of that size, g++
// takes each of its operations apart in memory, which is many times slower.
struct Floats {
  Eight low, high;
};

#define LANEWISE(OPERATION)                                                                                    \
  INLINE Floats operator OPERATION(Floats a, Floats b) { return {a.low OPERATION b.low, a.high OPERATION b.high}; } \
  INLINE Floats operator OPERATION(Floats a, float b) { return {a.low OPERATION b, a.high OPERATION b}; }           \
  INLINE Floats operator OPERATION(float a, Floats b) { return {a OPERATION b.low, a OPERATION b.high}; }           \
  INLINE Floats& operator OPERATION##=(Floats& a, Floats b) { return a = a OPERATION b; }
LANEWISE(+)
LANEWISE(-)
LANEWISE(*)
LANEWISE(/)
#undef LANEWISE
INLINE Floats operator-(Floats a) { return {-a.low, -a.high}; }

INLINE Floats filled(float value) { return Floats{} + value; }

// The larger of two, lane by lane: b where a is NaN.
INLINE Floats larger(Floats a, Floats b) { return {a.low > b.low ? a.low : b.low, a.high > b.high ? a.high : b.high}; }

// NaN stays NaN.
INLINE float atLeast(float value, float bound) { return value < bound ? bound : value; }
INLINE Floats atLeast(Floats value, float bound) {
  const Eight bounds = Eight{} + bound;
  return {value.low < bounds ? bounds : value.low, value.high < bounds ? bounds : value.high};
}

INLINE Floats load(const float* from) {
  Floats value;
  std::memcpy(&value.low, from, sizeof value.low);
  std::memcpy(&value.high, from + 8, sizeof value.high);
  return value;
}

INLINE Eight widened(const c10::BFloat16* from) {
  EightHalves halves;
  std::memcpy(&halves, from, sizeof halves);
  return (Eight)(__builtin_convertvector(halves, EightWords) << 16);
}

INLINE Floats load(const c10::BFloat16* from) { return {widened(from), widened(from + 8)}; }

INLINE void store(float* to, Floats value) {
  std::memcpy(to, &value.low, sizeof value.low);
  std::memcpy(to + 8, &value.high, sizeof value.high);
}

// To the nearest number of bfloat16, to the even one of two; NaN stays NaN.
INLINE EightWords roundedWords(Eight value) {
  const EightWords words = (EightWords)value, up = (words + 0x7fffu + ((words >> 16) & 1u)) >> 16;
  const EightWords isNan = (EightWords)(value != value);
  return (up & ~isNan) | (isNan & 0x7fc0u);
}

INLINE void store(c10::BFloat16* to, Floats value) {
  const EightHalves low = __builtin_convertvector(roundedWords(value.low), EightHalves);
  const EightHalves high = __builtin_convertvector(roundedWords(value.high), EightHalves);
  std::memcpy(to, &low, sizeof low);
  std::memcpy(to + 8, &high, sizeof high);
}

// What a number becomes when it is stored and loaded again.
INLINE float storedAs(const float*, float value) { return value; }
INLINE float storedAs(const c10::BFloat16*, float value) { return static_cast<float>(static_cast<c10::BFloat16>(value)); }
INLINE Floats storedAs(const float*, Floats value) { return value; }
INLINE Floats storedAs(const c10::BFloat16*, Floats value) {
  return {(Eight)(roundedWords(value.low) << 16), (Eight)(roundedWords(value.high) << 16)};
}

// Lanes in another order. g++ 11 has no __builtin_shufflevector, clang no __builtin_shuffle.
#if defined(__clang__)
#define ORDERED(a, ...) __builtin_shufflevector(a, a, __VA_ARGS__)
#else
#define ORDERED(a, ...) __builtin_shuffle(a, EightIntegers{__VA_ARGS__})
#endif

// Lanes of a and b, those of b numbered from 4.
template <int I, int J, int K, int L>
INLINE Four pick(Four a, Four b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, I, J, K, L);
#else
  typedef int Lanes __attribute__((vector_size(16)));
  return __builtin_shuffle(a, b, Lanes{I, J, K, L});
#endif
}

// Lanes 0, 0, 2, 2, …; 1, 1, 3, 3, …; 1, 0, 3, 2, …
INLINE Floats evenLanes(Floats a) { return {ORDERED(a.low, 0, 0, 2, 2, 4, 4, 6, 6), ORDERED(a.high, 0, 0, 2, 2, 4, 4, 6, 6)}; }
INLINE Floats oddLanes(Floats a) { return {ORDERED(a.low, 1, 1, 3, 3, 5, 5, 7, 7), ORDERED(a.high, 1, 1, 3, 3, 5, 5, 7, 7)}; }
INLINE Floats swappedLanes(Floats a) { return {ORDERED(a.low, 1, 0, 3, 2, 5, 4, 7, 6), ORDERED(a.high, 1, 0, 3, 2, 5, 4, 7, 6)}; }

// Four sums of four lanes each.
INLINE Four narrow(Floats value) {
  const Eight both = value.low + value.high;
  Four quarters[2];
  std::memcpy(quarters, &both, sizeof both);
  return quarters[0] + quarters[1];
}

// Lanes 0 … 3 hold the sums of the lanes of a, b, c and d.
INLINE Four sums(Floats a, Floats b, Floats c, Floats d) {
  const Four first = narrow(a), second = narrow(b), third = narrow(c), fourth = narrow(d);
  const Four front = pick<0, 1, 4, 5>(first, second) + pick<2, 3, 6, 7>(first, second);
  const Four back = pick<0, 1, 4, 5>(third, fourth) + pick<2, 3, 6, 7>(third, fourth);
  return pick<0, 2, 4, 6>(front, back) + pick<1, 3, 5, 7>(front, back);
}

INLINE float sumOf(Floats value) { return sums(value, value, value, value)[0]; }

INLINE float largestOf(Floats value) {
  float numbers[LANES], largest = value.low[0];
  store(numbers, value);
  for (const float number : numbers) largest = number > largest ? number : largest;
  return largest;
}

// e^x of numbers up to 88; exactly 0 below -87.33, where float32 has no normal number. Within 1 ulp of the correctly
// rounded one: 2^n · e^r with |r| ≤ ln 2 / 2, and e^r by its Taylor series to the seventh power. NaN stays NaN.
INLINE Eight exponential(Eight x) {
  constexpr float ROUNDING = 12582912;  // 1.5 · 2^23: adding and subtracting it rounds to an integer
  const Eight n = (x * 1.44269504088896341f + ROUNDING) - ROUNDING;
  const Eight r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Eight sum = r * (1.0f / 5040) + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const Eight scale = (Eight)((__builtin_convertvector(n, EightIntegers) + 127) << 23);
  const EightIntegers isZero = x < -87.33f;
  return (Eight)((EightIntegers)(sum * scale) & ~isZero);
}

INLINE Floats exponential(Floats x) { return {exponential(x.low), exponential(x.high)}; }
INLINE float exponential(float x) { return x < -87.33f ? 0 : std::exp(x); }

}  // namespace posttrain
