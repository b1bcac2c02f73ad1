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
typedef float Floats __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(64)));

INLINE Floats load(const float* from) {
  Floats value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

INLINE Floats load(const c10::BFloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  const Words words = __builtin_convertvector(halves, Words) << 16;
  Floats value;
  std::memcpy(&value, &words, sizeof value);
  return value;
}

INLINE void store(float* to, Floats value) { std::memcpy(to, &value, sizeof value); }

// To the nearest number of bfloat16, to the even one of two; NaN stays NaN.
INLINE Words roundedWords(Floats value) {
  Words words;
  std::memcpy(&words, &value, sizeof words);
  const Words up = (words + 0x7fffu + ((words >> 16) & 1u)) >> 16;
  const Words isNan = (Words)(value != value);
  return (up & ~isNan) | (isNan & 0x7fc0u);
}

INLINE void store(c10::BFloat16* to, Floats value) {
  const Halves halves = __builtin_convertvector(roundedWords(value), Halves);
  std::memcpy(to, &halves, sizeof halves);
}

// What a number becomes when it is stored and loaded again.
INLINE float storedAs(const float*, float value) { return value; }
INLINE float storedAs(const c10::BFloat16*, float value) { return static_cast<float>(static_cast<c10::BFloat16>(value)); }
INLINE Floats storedAs(const float*, Floats value) { return value; }
INLINE Floats storedAs(const c10::BFloat16*, Floats value) {
  const Words words = roundedWords(value) << 16;
  std::memcpy(&value, &words, sizeof value);
  return value;
}

typedef float Four __attribute__((vector_size(16)));

#if defined(__clang__)
#define ORDERED(a, ...) __builtin_shufflevector(a, a, __VA_ARGS__)
#else
typedef int Places __attribute__((vector_size(64)));
#define ORDERED(a, ...) __builtin_shuffle(a, Places{__VA_ARGS__})
#endif

// Lanes of a and b, those of b numbered from 4. g++ 11 has no __builtin_shufflevector, clang no __builtin_shuffle.
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
INLINE Floats evenLanes(Floats a) { return ORDERED(a, 0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14); }
INLINE Floats oddLanes(Floats a) { return ORDERED(a, 1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15); }
INLINE Floats swappedLanes(Floats a) { return ORDERED(a, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14); }

// Four sums of four lanes each.
INLINE Four narrow(Floats value) {
  Four quarters[4];
  std::memcpy(quarters, &value, sizeof value);
  return (quarters[0] + quarters[2]) + (quarters[1] + quarters[3]);
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
  float numbers[LANES], largest = value[0];
  store(numbers, value);
  for (const float number : numbers) largest = number > largest ? number : largest;
  return largest;
}

// e^x of numbers up to 88; exactly 0 below -87.33, where float32 has no normal number. Within 1 ulp of the correctly
// rounded one: 2^n · e^r with |r| ≤ ln 2 / 2, and e^r by its Taylor series to the seventh power. NaN stays NaN.
INLINE Floats exponential(Floats x) {
  typedef int32_t Integers __attribute__((vector_size(64)));
  constexpr float ROUNDING = 12582912;  // 1.5 · 2^23: adding and subtracting it rounds to an integer
  const Floats n = (x * 1.44269504088896341f + ROUNDING) - ROUNDING;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats sum = r * (1.0f / 5040) + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const Integers power = (__builtin_convertvector(n, Integers) + 127) << 23;
  Floats scale;
  std::memcpy(&scale, &power, sizeof scale);
  const Floats found = sum * scale;
  const Integers isZero = x < -87.33f;
  Integers bits;
  std::memcpy(&bits, &found, sizeof bits);
  bits &= ~isZero;
  Floats result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

INLINE float exponential(float x) { return x < -87.33f ? 0 : std::exp(x); }

}  // namespace posttrain
