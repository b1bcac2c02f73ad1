// Sixteen floats at a time, in whatever registers the processor has: a function marked with PER_PROCESSOR is compiled for
// several of them, and the best one is taken when the addon is loaded.
#pragma once

#include <c10/util/BFloat16.h>

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

typedef float Four __attribute__((vector_size(16)));

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

}  // namespace posttrain
