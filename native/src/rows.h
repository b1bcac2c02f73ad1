// What rows.cpp and packed.cpp compute for new tokens of some rows. No result has a gradient.
#pragma once

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>

#include <functional>
#include <initializer_list>
#include <optional>

namespace posttrain {

// [rows, width] on the CPU, without the way through the dispatcher: small layers would wait for it.
inline at::Tensor emptyRows(int64_t rows, int64_t width, at::ScalarType dtype) {
  return at::detail::empty_cpu({rows, width}, dtype);
}

// A result without a gradient where one is asked for would be wrong in silence.
void refuseGradient(const char* name, std::initializer_list<std::reference_wrapper<const at::Tensor>> tensors);

at::Tensor fewRowsLinear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// Whether a weight is one of pack_linear.
bool isPacked(const at::Tensor& weight);

// x [M, in] · weightᵀ + bias with such a weight → [M, out]
at::Tensor packedLinear(const at::Tensor& x, const at::Tensor& packed, const std::optional<at::Tensor>& bias);

// So many columns of caches [rows, Hkv, capacity, d] whose last dimension is contiguous, from the first on; mask [rows,
// capacity] float32, added to the scores.
struct Columns {
  const at::Tensor &keys, &values;
  const std::optional<at::Tensor>& mask;
  int64_t first, count;
};

// What the queries of rows look at: columns of their own, and before them those of a row of `shared`, which `sharedRows`
// [B] int32 names.
struct Seen {
  int64_t heads;
  Columns own;
  std::optional<Columns> shared;
  const at::Tensor* sharedRows;
};

// queries: of each row H·d numbers that lie together, of the dtype of the caches → [B, H·d]
at::Tensor attendSeen(const at::Tensor& queries, const Seen& seen, double scale, double softcap);

}  // namespace posttrain
