// Tensors and generators as integer slots. JavaScript holds the integers; the table holds the references.
//
// One table per thread, so that Node's worker threads never share one. Slot 0 is never used: it means "freed".
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <stdexcept>
#include <vector>

namespace posttrain {

// A slot that holds nothing was used. Becomes DisposedError in JavaScript.
struct DisposedSlot : std::runtime_error {
  DisposedSlot() : std::runtime_error("the tensor was already freed") {}
};

template <typename Value>
class SlotTable {
 public:
  int32_t put(Value value) {
    live_++;
    if (free_.empty()) {
      values_.push_back(std::move(value));
      return static_cast<int32_t>(values_.size() - 1);
    }
    const int32_t slot = free_.back();
    free_.pop_back();
    values_[slot] = std::move(value);
    return slot;
  }

  Value& get(int32_t slot) {
    if (slot <= 0 || static_cast<size_t>(slot) >= values_.size() || !values_[slot].defined()) {
      throw DisposedSlot();
    }
    return values_[slot];
  }

  void release(int32_t slot) {
    if (slot <= 0 || static_cast<size_t>(slot) >= values_.size() || !values_[slot].defined()) return;
    values_[slot] = Value();
    free_.push_back(slot);
    live_--;
  }

  int64_t live() const { return live_; }
  const std::vector<Value>& values() const { return values_; }

 private:
  std::vector<Value> values_ = std::vector<Value>(1);
  std::vector<int32_t> free_;
  int64_t live_ = 0;
};

SlotTable<at::Tensor>& tensors();
SlotTable<at::Generator>& generators();

}  // namespace posttrain
