// Loops over the threads that libtorch computes with.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

extern "C" {
// Of the OpenMP runtime that libtorch brings. The addon is not compiled with OpenMP: a second runtime beside that one would
// have threads of its own, and the two would wait for each other's cores. Without it loops run on one thread.
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags) __attribute__((weak));
int omp_get_thread_num() __attribute__((weak));
int omp_get_num_threads() __attribute__((weak));
}

namespace posttrain {

// body(begin, end) for parts of 0 … count, one per thread; multiples of `grain` except for the end.
template <typename Body>
void parallelFor(int64_t count, int64_t grain, const Body& body) {
  const int64_t pieces = (count + grain - 1) / grain;
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), pieces);
  const bool hasRuntime = GOMP_parallel != nullptr && omp_get_thread_num != nullptr && omp_get_num_threads != nullptr;
  if (threads <= 1 || !hasRuntime || at::in_parallel_region()) {
    if (count > 0) body(0, count);
    return;
  }
  struct Shared {
    const Body* body;
    int64_t count, grain, pieces;
  } shared{&body, count, grain, pieces};
  GOMP_parallel(
      [](void* data) {
        const Shared& all = *static_cast<Shared*>(data);
        // Fewer threads may come than were asked for (OMP_THREAD_LIMIT, OMP_DYNAMIC).
        const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
        const int64_t begin = all.pieces * thread / threads * all.grain;
        const int64_t end = std::min(all.count, all.pieces * (thread + 1) / threads * all.grain);
        if (begin < end) (*all.body)(begin, end);
      },
      &shared, static_cast<unsigned>(threads), 0);
}

}  // namespace posttrain
