#include "kernels/cuda/group_memory.h"

#include <map>
#include <mutex>

namespace bitnet {
namespace {

// All arrays of all groups by their first addresses, which no two devices share.
struct Arrays {
  std::mutex mutex;
  std::map<const std::byte*, std::vector<Buffer>> parts;
};
Arrays& arrays() {
  static auto& all = *new Arrays;
  return all;
}

void give_back(const MemorySource&, std::byte* data, size_t) {
  std::vector<Buffer> parts;
  const std::lock_guard<std::mutex> lock(arrays().mutex);
  const auto found = arrays().parts.find(data);
  parts = std::move(found->second);
  arrays().parts.erase(found);
}

}  // namespace

Buffer join_parts(std::vector<Buffer> parts, size_t size_bytes) {
  static constexpr MemorySource source{"cuda group", nullptr, give_back, nullptr};
  std::byte* const first = parts[0].data();
  const std::lock_guard<std::mutex> lock(arrays().mutex);
  arrays().parts.emplace(first, std::move(parts));
  return Buffer::adopt(source, first, size_bytes);
}

std::byte* part_of(const void* first, int rank) {
  if (first == nullptr) return nullptr;
  const auto* const place = static_cast<const std::byte*>(first);
  const std::lock_guard<std::mutex> lock(arrays().mutex);
  const auto found = std::prev(arrays().parts.upper_bound(place));
  return found->second[size_t(rank)].data() + (place - found->first);
}

}  // namespace bitnet
