#include "quant/ternary_streams.h"

#include "quant/ternary_blocks.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

namespace bitnet::ternary {
namespace {

constexpr int64_t kHybridValues = 256;

// How a block of a hybrid matrix is kept. The numbers are in files.
enum class BlockForm : uint8_t { kZeros, kTwoBit, kBase3, kBitmap, kRuns };
constexpr int kBlockForms = 5;

int number_bytes(uint64_t value) {
  int n = 1;
  while (value >= 128) value >>= 7, ++n;
  return n;
}

class Writer {
 public:
  void byte(uint8_t value) { out_.push_back(std::byte(value)); }
  void number(uint64_t value) {
    for (; value >= 128; value >>= 7) byte(uint8_t(value | 128));
    byte(uint8_t(value));
  }
  uint8_t* grow(size_t n) {
    out_.resize(out_.size() + n);
    return reinterpret_cast<uint8_t*>(out_.data()) + out_.size() - n;
  }
  std::vector<std::byte> take() { return std::move(out_); }

 private:
  std::vector<std::byte> out_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes)
      : at_(reinterpret_cast<const uint8_t*>(bytes.data())), end_(at_ + bytes.size()) {}
  bool done() const { return at_ == end_; }
  // The number's shortest form, or nothing.
  std::optional<uint64_t> number() {
    uint64_t value = 0;
    for (int shift = 0; shift < 63 && at_ != end_; shift += 7) {
      const uint8_t b = *at_++;
      value |= uint64_t(b & 127) << shift;
      if (b < 128) return b == 0 && shift > 0 ? std::nullopt : std::optional(value);
    }
    return std::nullopt;
  }
  const uint8_t* take(size_t n) {
    if (size_t(end_ - at_) < n) return nullptr;
    at_ += n;
    return at_ - n;
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

// Runs of equal values: (length - 1) * 3 + code.
template <class Run>
void for_each_run(const uint8_t* codes, int64_t n, const Run& run) {
  for (int64_t at = 0; at < n;) {
    int64_t end = at + 1;
    while (end < n && codes[end] == codes[at]) ++end;
    run(uint64_t(end - at - 1) * 3 + codes[at]);
    at = end;
  }
}

// Neighbouring runs of one code would be one run.
bool read_runs(Reader& in, int64_t n, uint8_t* codes) {
  int previous = 3;
  for (int64_t at = 0; at < n;) {
    const auto token = in.number();
    if (!token || *token / 3 >= uint64_t(n - at) || int(*token % 3) == previous) return false;
    previous = int(*token % 3);
    std::memset(codes + at, previous, size_t(*token / 3 + 1));
    at += int64_t(*token / 3 + 1);
  }
  return true;
}

// Of each value that is not 0, how many zeros stand in front of it, times two, plus one for +1. The rest is zeros.
void write_sparse(std::span<const uint8_t> codes, Writer& out) {
  uint64_t zeros = 0;
  for (const uint8_t code : codes) {
    if (code == 1) {
      ++zeros;
      continue;
    }
    out.number(zeros * 2 + (code >> 1));
    zeros = 0;
  }
}
bool read_sparse(Reader& in, int64_t n, uint8_t* codes) {
  std::memset(codes, 1, size_t(n));
  int64_t at = 0;
  while (!in.done()) {
    const auto token = in.number();
    if (!token || *token / 2 >= uint64_t(n - at)) return false;
    at += int64_t(*token / 2);
    codes[at++] = uint8_t(*token % 2 * 2);
  }
  return true;
}

int64_t base3_bytes(int64_t n) { return (n + 4) / 5; }
int64_t two_bit_bytes(int64_t n) { return (n + 3) / 4; }
int64_t count_nonzero(const uint8_t* codes, int64_t n) { return n - std::count(codes, codes + n, uint8_t{1}); }

BlockForm smallest_form(const uint8_t* codes, int64_t n) {
  const int64_t n_nonzero = count_nonzero(codes, n);
  if (n_nonzero == 0) return BlockForm::kZeros;
  int64_t run_bytes = 0;
  for_each_run(codes, n, [&](uint64_t token) { run_bytes += number_bytes(token); });
  const std::array<int64_t, kBlockForms> sizes = {INT64_MAX, two_bit_bytes(n), base3_bytes(n),
                                                  (n + 7) / 8 + (n_nonzero + 7) / 8, run_bytes};
  return BlockForm(std::min_element(sizes.begin(), sizes.end()) - sizes.begin());
}

// A bit a value, set where it is not 0; then a bit for each of those, set where it is +1.
void write_bitmap(const uint8_t* codes, int64_t n, Writer& out) {
  const int64_t n_nonzero = count_nonzero(codes, n);
  uint8_t* map = out.grow(size_t((n + 7) / 8 + (n_nonzero + 7) / 8));
  uint8_t* signs = map + (n + 7) / 8;
  for (int64_t i = 0, k = 0; i < n; ++i) {
    if (codes[i] == 1) continue;
    map[i / 8] |= uint8_t(1 << i % 8);
    signs[k / 8] |= uint8_t((codes[i] >> 1) << k % 8);
    ++k;
  }
}
bool read_bitmap(Reader& in, int64_t n, uint8_t* codes) {
  const uint8_t* map = in.take(size_t((n + 7) / 8));
  if (map == nullptr) return false;
  int64_t n_nonzero = 0;
  for (int64_t i = 0; i < n; ++i) n_nonzero += map[i / 8] >> i % 8 & 1;
  const uint8_t* signs = in.take(size_t((n_nonzero + 7) / 8));
  if (signs == nullptr) return false;
  int64_t k = 0;
  for (int64_t i = 0; i < n; ++i) {
    if ((map[i / 8] >> i % 8 & 1) == 0) {
      codes[i] = 1;
      continue;
    }
    codes[i] = uint8_t((signs[k / 8] >> k % 8 & 1) * 2);
    ++k;
  }
  const bool padded = (n % 8 == 0 || map[n / 8] >> n % 8 == 0) && (k % 8 == 0 || signs[k / 8] >> k % 8 == 0);
  return padded && n_nonzero > 0;
}

template <int64_t kPerByte, class Pack>
void write_neighbours(const uint8_t* codes, int64_t n, Writer& out, Pack pack) {
  uint8_t padded[kHybridValues + 8] = {};
  std::memcpy(padded, codes, size_t(n));
  const int64_t n_bytes = (n + kPerByte - 1) / kPerByte;
  pack(padded, n_bytes, out.grow(size_t(n_bytes)));
}
template <int64_t kPerByte, class Unpack>
bool read_neighbours(Reader& in, int64_t n, uint8_t* codes, Unpack unpack) {
  const int64_t n_bytes = (n + kPerByte - 1) / kPerByte;
  const uint8_t* bytes = in.take(size_t(n_bytes));
  uint8_t padded[kHybridValues + 8];
  if (bytes == nullptr || !unpack(bytes, n_bytes, padded)) return false;
  for (int64_t i = n; i < n_bytes * kPerByte; ++i) {
    if (padded[i] != 0) return false;
  }
  std::memcpy(codes, padded, size_t(n));
  return true;
}

void write_block(const uint8_t* codes, int64_t n, Writer& out) {
  const BlockForm form = smallest_form(codes, n);
  out.byte(uint8_t(form));
  switch (form) {
    case BlockForm::kZeros: break;
    case BlockForm::kTwoBit: write_neighbours<4>(codes, n, out, pack_neighbours); break;
    case BlockForm::kBase3: write_neighbours<5>(codes, n, out, pack_base3_neighbours); break;
    case BlockForm::kBitmap: write_bitmap(codes, n, out); break;
    case BlockForm::kRuns: for_each_run(codes, n, [&](uint64_t token) { out.number(token); }); break;
  }
}
bool read_block(Reader& in, int64_t n, uint8_t* codes) {
  const uint8_t* form = in.take(1);
  if (form == nullptr || *form >= kBlockForms) return false;
  bool good = false;
  switch (BlockForm(*form)) {
    case BlockForm::kZeros: std::memset(codes, 1, size_t(n)); return true;
    case BlockForm::kTwoBit: good = read_neighbours<4>(in, n, codes, unpack_neighbours); break;
    case BlockForm::kBase3: good = read_neighbours<5>(in, n, codes, unpack_base3_neighbours); break;
    case BlockForm::kBitmap: good = read_bitmap(in, n, codes); break;
    case BlockForm::kRuns: good = read_runs(in, n, codes); break;
  }
  // A larger form than need be is damage: the encoder takes the smallest.
  return good && smallest_form(codes, n) == BlockForm(*form);
}

Error broken(const TernaryView& view, int64_t at) {
  return invalid_input("row {}, column {}: the {} stream holds no ternary values from here on", at / view.n_cols,
                       at % view.n_cols, ternary_layout_name(view.layout));
}

}  // namespace

std::vector<std::byte> encode_stream(TernaryLayout layout, std::span<const uint8_t> codes) {
  Writer out;
  const int64_t n = int64_t(codes.size());
  switch (layout) {
    case TernaryLayout::kRunLength: for_each_run(codes.data(), n, [&](uint64_t token) { out.number(token); }); break;
    case TernaryLayout::kSparse: write_sparse(codes, out); break;
    default:
      for (int64_t at = 0; at < n; at += kHybridValues) {
        write_block(codes.data() + at, std::min(kHybridValues, n - at), out);
      }
      break;
  }
  return out.take();
}

Status decode_stream(const TernaryView& view, int64_t begin, int64_t end, uint8_t* codes) {
  Reader in(view.bytes);
  const int64_t n = view.n_rows * view.n_cols;
  if (view.layout == TernaryLayout::kHybrid) {
    uint8_t block[kHybridValues];
    for (int64_t at = 0; at < n; at += kHybridValues) {
      const int64_t size = std::min(kHybridValues, n - at);
      if (!read_block(in, size, block)) return broken(view, at);
      const int64_t first = std::max(at, begin), last = std::min(at + size, end);
      if (first < last) std::memcpy(codes + (first - begin), block + (first - at), size_t(last - first));
    }
  } else {
    // A few bytes may stand for any number of values, so no more is held than the caller has room for: the shape has
    // been compared with what the file promises.
    std::vector<uint8_t> all(static_cast<size_t>(n));
    const bool good =
        view.layout == TernaryLayout::kRunLength ? read_runs(in, n, all.data()) : read_sparse(in, n, all.data());
    if (!good) return broken(view, 0);
    if (end > begin) std::memcpy(codes, all.data() + begin, size_t(end - begin));
  }
  return in.done() ? ok()
                   : Status(invalid_input("the {} stream goes on after the last value of [{}, {}]",
                                          ternary_layout_name(view.layout), view.n_rows, view.n_cols));
}

}  // namespace bitnet::ternary
