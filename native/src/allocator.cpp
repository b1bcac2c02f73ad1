// Memory of tensors on the CPU. Large blocks that are freed are kept for later tensors: a training step asks for about the
// same memory again and again, and a block that is new from the system costs a page fault for every 4 KiB of it, which the
// kernel fills with zeros (`npm run bench -- parts` measures it). Blocks that wait side by side are one; a tensor takes the
// front of the smallest one that is large enough.
//
// Blocks in use and blocks that wait take together hardly more than what was in use at once before. Beyond it, where none is
// large enough, a new block is made of the pages of those that wait longest, moved to its addresses: cheaper than faults, and
// no page is lost because what waits is in small pieces.
//
// Addresses follow each other, so that the system can back them with huge pages whatever the sizes of blocks are: a fault
// for every 2 MiB, and as few addresses to look up while weights are read. Pages that were moved are small again.
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "napi.h"

namespace posttrain {
namespace {

constexpr size_t ALIGNMENT = 64;
// Below it, malloc serves as well and has less to add up.
constexpr size_t LARGE = size_t{256} << 10;
constexpr size_t PAGE = 4096;
constexpr size_t SLACK = size_t{16} << 20;
constexpr size_t HUGE_PAGE = size_t{2} << 20;
// Addresses that are reserved at a time. They cost nothing before they are used.
constexpr size_t REGION = size_t{64} << 30;
// Every piece that is moved may be a mapping of its own, and a process has 65,530 of them (vm.max_map_count).
constexpr size_t MOST_SEAMS = 16384;
// On average of a block whose pages are moved.
constexpr size_t LEAST_PIECE = size_t{128} << 10;

// 32 sizes per power of two, so that rows of nearly the same length find each other's blocks.
size_t roundedSize(size_t bytes) {
  const size_t step = std::max(PAGE, (size_t{1} << (63 - __builtin_clzll(bytes))) / 32);
  return (bytes + step - 1) / step * step;
}

struct Block {
  char* start;
  size_t size;
  char* end() const { return start + size; }
};

class Blocks {
 public:
  void* take(size_t bytes) {
    const size_t size = roundedSize(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = bySize_.lower_bound({size, nullptr});
    if (found != bySize_.end()) return use(frontOf(found->second, size));
    char* start = fromSystem(size);
    while (start == nullptr && !order_.empty()) {
      giveBackOldest();
      start = fromSystem(size);
    }
    return start == nullptr ? nullptr : use(filled({start, size}));
  }

  // False for a block that is not of these.
  bool put(void* start) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = used_.find(start);
    if (found == used_.end()) return false;
    inUse_ -= found->second.size;
    wait(joined(found->second), order_.end());
    used_.erase(found);
    return true;
  }

  void giveBackAll() {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (!order_.empty()) giveBackOldest();
    most_ = inUse_;
  }

  // So many bytes of what is kept, or all where that is less.
  void giveBack(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    size_t left = (bytes + PAGE - 1) / PAGE * PAGE;
    while (left > 0 && !order_.empty()) left -= giveBackOldest(left);
  }

  std::vector<size_t> state() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {inUse_, kept_, most_};
  }

 private:
  using Order = std::list<Block>;

  static char* map(size_t size, int protection, void* at = nullptr) {
    void* start = mmap(at, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | (at == nullptr ? 0 : MAP_FIXED), -1, 0);
    if (start == MAP_FAILED) return nullptr;
    madvise(start, size, MADV_HUGEPAGE);  // slower where there are none, and not wrong
    return static_cast<char*>(start);
  }

  // The next addresses of the region, or of a new one; a mapping of its own where none can be reserved. The system says here
  // what it can never give.
  char* fromSystem(size_t size) {
    if (size > regionLeft_ && size <= REGION - HUGE_PAGE) reserve();
    if (size > regionLeft_) {
      char* const own = map(size, PROT_READ | PROT_WRITE);
      if (own != nullptr) seams_.insert({own, own + size});
      return own;
    }
    char* const start = region_;
    if (size > writable_) {
      // Whole huge pages, since the system gives none that it may not write to in full.
      const size_t further = (size - writable_ + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
      if (mprotect(start + writable_, further, PROT_READ | PROT_WRITE) != 0) return nullptr;
      writable_ += further;
    }
    region_ += size;
    regionLeft_ -= size;
    writable_ -= size;
    return start;
  }

  void reserve() {
    // Where addresses are limited they are not to be had for nothing.
    rlimit limit{};
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) return;
    char* const start = map(REGION, PROT_NONE);
    if (start == nullptr) return;
    if (regionLeft_ > 0) munmap(region_, regionLeft_);
    const size_t past = reinterpret_cast<uintptr_t>(start) % HUGE_PAGE;
    const size_t skipped = past == 0 ? 0 : HUGE_PAGE - past;
    region_ = start + skipped;
    regionLeft_ = (REGION - skipped) / HUGE_PAGE * HUGE_PAGE;
    writable_ = 0;
    seams_.insert({region_, region_ + regionLeft_});
  }

  void* use(Block block) {
    void* const start = block.start;
    inUse_ += block.size;
    most_ = std::max(most_, inUse_);
    used_.emplace(start, block);
    return start;
  }

  void wait(Block block, Order::iterator before) {
    kept_ += block.size;
    const Order::iterator place = order_.insert(before, block);
    bySize_.emplace(std::pair(block.size, block.start), place);
    byStart_.emplace(block.start, place);
  }

  Block takeOut(Order::iterator place) {
    bySize_.erase({place->size, place->start});
    byStart_.erase(place->start);
    kept_ -= place->size;
    const Block block = *place;
    order_.erase(place);
    return block;
  }

  // So many bytes of a block that waits; what is left of it waits in its place, unless it is too small for any tensor.
  Block frontOf(Order::iterator place, size_t size) {
    const Order::iterator next = std::next(place);
    Block block = takeOut(place);
    if (block.size - size < LARGE) return block;
    wait({block.start + size, block.size - size}, next);
    return {block.start, size};
  }

  // With the blocks that wait before and after it.
  Block joined(Block block) {
    const auto after = byStart_.find(block.end());
    if (after != byStart_.end()) block.size += takeOut(after->second).size;
    const auto next = byStart_.lower_bound(block.start);
    if (next == byStart_.begin() || std::prev(next)->second->end() != block.start) return block;
    const Block before = takeOut(std::prev(next)->second);
    return {before.start, before.size + block.size};
  }

  // From its end, and no more than said. @returns how many bytes
  size_t giveBackOldest(size_t most = SIZE_MAX) {
    const Block oldest = takeOut(order_.begin());
    const size_t size = std::min(oldest.size, most);
    const Block last{oldest.end() - size, size};
    // Where the system has no further mapping to divide, the pages go without their addresses.
    if (munmap(last.start, size) != 0) madvise(last.start, size, MADV_DONTNEED);
    forgetSeams(last);
    if (size < oldest.size) wait({oldest.start, oldest.size - size}, order_.begin());
    return size;
  }

  // New addresses, with pages of blocks that wait for as much as would be too many otherwise.
  Block filled(Block block) {
    const size_t most = std::max(most_, inUse_ + block.size);
    size_t done = 0;
    while (!order_.empty() && done < block.size && inUse_ + kept_ + block.size > most + SLACK) {
      // Pieces are divided and never joined: small ones would cost more than new pages do.
      const Block& oldest = order_.front();
      if (seams_.size() > MOST_SEAMS || oldest.size / piecesOf(oldest) < LEAST_PIECE) giveBackOldest();
      else done += moveOldest(block, done);
    }
    return block;
  }

  size_t piecesOf(const Block& block) const {
    return 1 + static_cast<size_t>(std::distance(seams_.upper_bound(block.start), seams_.lower_bound(block.end())));
  }

  // Of addresses that have no pages any more, and may have others later.
  void forgetSeams(const Block& block) { seams_.erase(seams_.lower_bound(block.start), seams_.upper_bound(block.end())); }

  // Moves pages of the block that waits longest to `block`, from its byte `done` on. @returns how many bytes
  size_t moveOldest(const Block& block, size_t done) {
    Block oldest = takeOut(order_.begin());
    size_t moved = 0;
    while (oldest.size > 0 && done + moved < block.size) {
      // From its end, so that what is left is a block still; never over a seam.
      const auto seam = seams_.lower_bound(oldest.end());
      char* const start = seam == seams_.begin() ? oldest.start : std::max(oldest.start, *std::prev(seam));
      const size_t size = std::min(static_cast<size_t>(oldest.end() - start), block.size - done - moved);
      char *const from = oldest.end() - size, *const to = block.start + done + moved;
      if (mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED) {
        // What had been there may be gone.
        TORCH_CHECK(map(size, PROT_READ | PROT_WRITE, to) != nullptr, "internal: cannot map ", size, " bytes that were mapped");
        munmap(from, size);
      }
      seams_.insert({to, to + size});
      forgetSeams({from, size});
      moved += size;
      oldest.size -= size;
    }
    if (oldest.size > 0) wait(oldest, order_.begin());
    return moved;
  }

  std::mutex mutex_;
  std::unordered_map<void*, Block> used_;
  Order order_;  // blocks that wait, the longest waiting first
  std::map<std::pair<size_t, char*>, Order::iterator> bySize_;
  std::map<char*, Order::iterator> byStart_;
  size_t inUse_ = 0;
  size_t kept_ = 0;
  size_t most_ = 0;  // that was in use at once
  std::set<char*> seams_;  // addresses where mappings may meet: where pages that were moved, or a region, begin or end
  char* region_ = nullptr;  // addresses that no block has had, and how many of them may be written to
  size_t regionLeft_ = 0;
  size_t writable_ = 0;
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

// giveBackHostMemory(bytes)
napi_value giveBackHostMemory(napi_env env, napi_callback_info info) {
  return guard(env, "giveBackHostMemory", [&]() -> napi_value {
    const Arguments arguments(env, info);
    blocks().giveBack(static_cast<size_t>(std::max<int64_t>(0, asInt64(env, arguments[0]))));
    return nullptr;
  });
}

}  // namespace

void defineAllocator(napi_env env, napi_value exports) {
  static KeepingAllocator* const allocator = new KeepingAllocator();
  if (c10::GetCPUAllocator() != allocator) c10::SetCPUAllocator(allocator, /*priority=*/1);
  define(env, exports, "hostMemory", hostMemory);
  define(env, exports, "releaseHostMemory", releaseHostMemory);
  define(env, exports, "giveBackHostMemory", giveBackHostMemory);
}

}  // namespace posttrain
