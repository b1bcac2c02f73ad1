// Memory of tensors on the CPU. Large blocks that are freed are kept for the next tensor of their size: a training step
// asks for the same sizes again and again, and a block that is new from the system costs a page fault for every 4 KiB of
// it, which the kernel fills with zeros (`npm run bench -- parts` measures it).
//
// Blocks that are in use and blocks that wait take together at most a quarter more than what was in use at once before,
// plus `SLACK`. A strict limit would give the blocks of the forward pass back for those of the backward pass, and ask for
// them anew in every step.
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "napi.h"

namespace posttrain {
namespace {

constexpr size_t ALIGNMENT = 64;
// Below it, malloc serves as well and has less to add up.
constexpr size_t LARGE = size_t{256} << 10;
constexpr size_t PAGE = 4096;
constexpr size_t SLACK = size_t{64} << 20;

// Eight sizes per power of two, so that rows of nearly the same length find each other's blocks.
size_t roundedSize(size_t bytes) {
  const size_t step = std::max(PAGE, (size_t{1} << (63 - __builtin_clzll(bytes))) / 8);
  return (bytes + step - 1) / step * step;
}

class Blocks {
 public:
  void* take(size_t bytes) {
    const size_t size = roundedSize(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = waiting_.find(size);
    if (found != waiting_.end()) return reuse(found);
    const size_t most = std::max(most_, inUse_ + size);
    while (!order_.empty() && inUse_ + kept_ + size > most + most / 4 + SLACK) giveBackOldest();
    void* block = fromSystem(size);
    while (block == nullptr && !order_.empty()) {
      giveBackOldest();
      block = fromSystem(size);
    }
    if (block != nullptr) use(block, size);
    return block;
  }

  // False for a block that is not of these.
  bool put(void* block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = sizes_.find(block);
    if (found == sizes_.end()) return false;
    const size_t size = found->second;
    sizes_.erase(found);
    inUse_ -= size;
    kept_ += size;
    const auto place = waiting_.emplace(size, Waiting{block, {}});
    place->second.order = order_.insert(order_.end(), place);
    return true;
  }

  void giveBackAll() {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (!order_.empty()) giveBackOldest();
    most_ = inUse_;
  }

  std::vector<size_t> state() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {inUse_, kept_, most_};
  }

 private:
  struct Waiting;
  using BySize = std::multimap<size_t, Waiting>;
  struct Waiting {
    void* block;
    std::list<BySize::iterator>::iterator order;
  };

  static void* fromSystem(size_t size) {
    void* block = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block == MAP_FAILED ? nullptr : block;
  }

  void use(void* block, size_t size) {
    sizes_[block] = size;
    inUse_ += size;
    most_ = std::max(most_, inUse_);
  }

  void* reuse(BySize::iterator found) {
    const auto [size, waiting] = *found;
    order_.erase(waiting.order);
    waiting_.erase(found);
    kept_ -= size;
    use(waiting.block, size);
    return waiting.block;
  }

  void giveBackOldest() {
    const BySize::iterator oldest = order_.front();
    munmap(oldest->second.block, oldest->first);
    kept_ -= oldest->first;
    order_.pop_front();
    waiting_.erase(oldest);
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;  // of blocks in use
  BySize waiting_;
  std::list<BySize::iterator> order_;  // of waiting blocks, the longest waiting first
  size_t inUse_ = 0;
  size_t kept_ = 0;
  size_t most_ = 0;  // that was in use at once
};

// Never destroyed: tensors of static objects may be freed after everything else.
Blocks& blocks() {
  static Blocks* const all = new Blocks();
  return *all;
}

// Large blocks begin at a page; a small one does so by chance only.
void freeBlock(void* block) {
  const bool mayBeLarge = reinterpret_cast<uintptr_t>(block) % PAGE == 0;
  if (!mayBeLarge || !blocks().put(block)) std::free(block);
}

class KeepingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, nullptr, &freeBlock, cpu};
    TORCH_CHECK(bytes <= SIZE_MAX / 2, "DefaultCPUAllocator: invalid size ", bytes);
    void* block = nullptr;
    if (bytes >= LARGE) block = blocks().take(bytes);
    else if (posix_memalign(&block, ALIGNMENT, bytes) != 0) block = nullptr;
    TORCH_CHECK(block != nullptr, "DefaultCPUAllocator: can't allocate memory: you tried to allocate ", bytes, " bytes.");
    return {block, block, &freeBlock, cpu};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &freeBlock; }

  void copy_data(void* target, const void* source, size_t bytes) const override {
    default_copy_data(target, source, bytes);
  }
};

// hostMemory() → [bytes of large blocks in use, of those kept for later, the most that was in use at once]
napi_value hostMemory(napi_env env, napi_callback_info info) {
  return guard(env, "hostMemory", [&] {
    napi_value result;
    check(napi_create_array(env, &result), "internal: cannot make an array");
    uint32_t index = 0;
    for (const size_t bytes : blocks().state()) {
      check(napi_set_element(env, result, index++, fromInt64(env, static_cast<int64_t>(bytes))), "internal: cannot fill an array");
    }
    return result;
  });
}

napi_value releaseHostMemory(napi_env env, napi_callback_info info) {
  return guard(env, "releaseHostMemory", [&]() -> napi_value {
    blocks().giveBackAll();
    return nullptr;
  });
}

}  // namespace

void defineAllocator(napi_env env, napi_value exports) {
  static KeepingAllocator* const allocator = new KeepingAllocator();
  if (c10::GetCPUAllocator() != allocator) c10::SetCPUAllocator(allocator, /*priority=*/1);
  define(env, exports, "hostMemory", hostMemory);
  define(env, exports, "releaseHostMemory", releaseHostMemory);
}

}  // namespace posttrain
