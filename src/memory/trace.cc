#include "memory/trace.h"

#include <optional>

namespace bitnet {
namespace {

constexpr std::string_view kMagic = "BNALLOC1";
constexpr uint64_t kMostEvents = uint64_t{1} << 31;

void put(std::string& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out.push_back(char((value & 127) | 128));
  out.push_back(char(value));
}

std::optional<uint64_t> get(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0; shift < 63 && !bytes.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.front());
    bytes.remove_prefix(1);
    value |= uint64_t{byte & 127u} << shift;
    if (byte < 128) return value;
  }
  return std::nullopt;
}

}  // namespace

std::string encode(const AllocationTrace& trace) {
  std::string out(kMagic);
  put(out, trace.events.size());
  uint32_t n_blocks = 0;
  for (const AllocationTrace::Event& event : trace.events) {
    if (event.size_bytes > 0) {
      put(out, event.size_bytes << 1);
      ++n_blocks;
    } else {
      put(out, uint64_t{n_blocks - 1 - event.block} << 1 | 1);
    }
  }
  return out;
}

Result<AllocationTrace> decode_trace(std::string_view bytes, const std::string& name) {
  if (!bytes.starts_with(kMagic)) return invalid_input("{}: is no allocation trace", name);
  bytes.remove_prefix(kMagic.size());
  const std::optional<uint64_t> n_events = get(bytes);
  if (!n_events || *n_events > kMostEvents || *n_events > bytes.size()) {
    return invalid_input("{}: the number of events does not fit the file", name);
  }
  AllocationTrace trace;
  trace.events.reserve(*n_events);
  std::vector<bool> live;
  for (uint64_t i = 0; i < *n_events; ++i) {
    const std::optional<uint64_t> value = get(bytes);
    if (!value) return invalid_input("{}: ends within event {} of {}", name, i, *n_events);
    const uint64_t number = *value >> 1;
    if ((*value & 1) == 0) {
      if (number == 0) return invalid_input("{}: event {} allocates nothing", name, i);
      trace.allocate(number);
      live.push_back(true);
      continue;
    }
    if (number >= live.size() || !live[live.size() - 1 - number]) {
      return invalid_input("{}: event {} releases a block that is not live", name, i);
    }
    const auto block = uint32_t(live.size() - 1 - number);
    live[block] = false;
    trace.release(block);
  }
  if (!bytes.empty()) return invalid_input("{}: {} bytes follow the last event", name, bytes.size());
  return trace;
}

}  // namespace bitnet
