#include "tokenizer/token_index.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>

namespace bitnet {

TokenIndex::TokenIndex(size_t capacity) : slots_(std::bit_ceil(2 * capacity + 1)), mask_(slots_.size() - 1) {}

uint64_t TokenIndex::hash(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

size_t TokenIndex::slot_of(const TokenStrings& strings, std::string_view text, uint64_t hash) const {
  const uint32_t tag = uint32_t(hash >> 32);
  size_t i = hash & mask_;
  while (slots_[i].id >= 0 && (slots_[i].tag != tag || strings[size_t(slots_[i].id)] != text)) i = (i + 1) & mask_;
  return i;
}

int32_t TokenIndex::insert(const TokenStrings& strings, int32_t id) {
  const std::string_view text = strings[size_t(id)];
  const uint64_t h = hash(text);
  Slot& slot = slots_[slot_of(strings, text, h)];
  if (slot.id < 0) {
    slot = {uint32_t(h >> 32), id};
    max_size_bytes_ = std::max(max_size_bytes_, text.size());
  }
  return slot.id;
}

}  // namespace bitnet
