// Loops over the threads that libtorch computes with.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

extern "C" {
// Of the OpenMP runtime that libtorch brings. The addon is not compiled with OpenMP: a second runtime beside that one would
// have threads of its own, and the two would wait for each other's cores. Without it loops run on one thread.
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags) __attribute__((weak));
int omp_get_thread_num() __attribute__((weak));
int omp_get_num_threads() __attribute__((weak));
}

namespace posttrain {

// Calls `work(thread, threads)` once in each of so many threads at most; on this one alone where there is no OpenMP.
template <typename Work>
void inThreads(int64_t most, const Work& work) {
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), most);
  const bool hasRuntime = GOMP_parallel != nullptr && omp_get_thread_num != nullptr && omp_get_num_threads != nullptr;
  if (threads <= 1 || !hasRuntime || at::in_parallel_region()) return work(0, 1);
  // Fewer threads may come than were asked for (OMP_THREAD_LIMIT, OMP_DYNAMIC).
  GOMP_parallel([](void* data) { (*static_cast<const Work*>(data))(omp_get_thread_num(), omp_get_num_threads()); },
                const_cast<Work*>(&work), static_cast<unsigned>(threads), 0);
}

// body(begin, end) for parts of 0 … count, one per thread; multiples of `grain` except for the end.
template <typename Body>
void parallelFor(int64_t count, int64_t grain, const Body& body) {
  const int64_t pieces = (count + grain - 1) / grain;
  inThreads(pieces, [&](int64_t thread, int64_t threads) {
    const int64_t begin = pieces * thread / threads * grain;
    const int64_t end = std::min(count, pieces * (thread + 1) / threads * grain);
    if (begin < end) body(begin, end);
  });
}

// The same piece by piece, each taken by the thread that is free first: threads that read memory are not equally fast, nor
// do all begin at once.
template <typename Body>
void parallelPieces(int64_t count, int64_t grain, const Body& body) {
  std::atomic<int64_t> next{0};
  inThreads((count + grain - 1) / grain, [&](int64_t, int64_t) {
    for (int64_t begin; (begin = next.fetch_add(grain, std::memory_order_relaxed)) < count;)
      body(begin, std::min(count, begin + grain));
  });
}

}  // namespace posttrain
