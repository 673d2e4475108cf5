#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

// Small blocks come in sizes of 16 bytes apart up to 128, then in eight steps an octave, so that rounding up adds at
// most an eighth. A size that is a multiple of 64 gets a class that is one too.
namespace bitnet {

constexpr size_t kSmallLimit_bytes = size_t{32} << 10;  // larger blocks are mapped directly
constexpr int kSizeClasses = 72;
constexpr size_t kPoolPage_bytes = size_t{16} << 10;  // of which spans are made

// Of 1 to kSmallLimit_bytes, by arithmetic.
constexpr int computed_size_class(size_t size_bytes) {
  if (size_bytes <= 128) return int((size_bytes + 15) / 16) - 1;
  const int log = 63 - std::countl_zero(uint64_t(size_bytes - 1));  // size_bytes in (2^log, 2^(log + 1)]
  return 8 * (log - 7) + int((size_bytes - 1) >> (log - 3));
}
// The same; most sizes are short and of no order, so that a processor would guess their branches wrong.
constexpr size_t kTabled_bytes = 1024;
inline constexpr std::array<uint8_t, kTabled_bytes / 16 + 1> kClassOfSixteenths = [] {
  std::array<uint8_t, kTabled_bytes / 16 + 1> table{};
  for (size_t i = 1; i < table.size(); ++i) table[i] = uint8_t(computed_size_class(16 * i));
  return table;
}();
constexpr int size_class(size_t size_bytes) {
  return size_bytes <= kTabled_bytes ? kClassOfSixteenths.data()[(size_bytes + 15) / 16]
                                     : computed_size_class(size_bytes);
}
constexpr size_t class_bytes(int size_class) {
  if (size_class < 8) return 16 * size_t(size_class + 1);
  const size_t octave = size_t{128} << (size_class / 8 - 1);
  return octave + octave / 8 * size_t(size_class % 8 + 1);
}
static_assert(size_class(kSmallLimit_bytes) == kSizeClasses - 1 && class_bytes(kSizeClasses - 1) == kSmallLimit_bytes);

// Pages of a span of this class: at least four blocks and 32 KiB, and as little left over as there is below three times
// that.
constexpr size_t span_pages(int size_class) {
  const size_t size_bytes = class_bytes(size_class);
  size_t least = 4 * size_bytes / kPoolPage_bytes;
  if (least * kPoolPage_bytes < 4 * size_bytes) ++least;
  if (least < 2) least = 2;
  size_t best = least;
  for (size_t pages = least; pages < 3 * least && pages * kPoolPage_bytes <= (size_t{1} << 20); ++pages) {
    const size_t rest = pages * kPoolPage_bytes % size_bytes, best_rest = best * kPoolPage_bytes % size_bytes;
    if (rest * best < best_rest * pages) best = pages;
  }
  return best;
}

struct ClassShape {
  uint32_t size_bytes;
  uint32_t n_pages;   // of a span
  uint32_t n_blocks;  // in a span
};
inline constexpr std::array<ClassShape, kSizeClasses> kClassShapes = [] {
  std::array<ClassShape, kSizeClasses> shapes{};
  for (int c = 0; c < kSizeClasses; ++c) {
    const size_t size_bytes = class_bytes(c), n_pages = span_pages(c);
    shapes[size_t(c)] = {uint32_t(size_bytes), uint32_t(n_pages), uint32_t(n_pages * kPoolPage_bytes / size_bytes)};
  }
  return shapes;
}();

}  // namespace bitnet
