#include "format/packed_ternary.h"

#include "base/checked.h"
#include "format/checksum.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>

namespace bitnet {
namespace {

constexpr std::array<char, 4> kMagic = {'B', 'N', 'P', 'T'};
constexpr uint8_t kVersion = 1;
constexpr int kMinChunkBits = 6, kMaxChunkBits = 20;

// As it stands in a file, little-endian, without padding; twice in a row.
struct Header {
  std::array<char, 4> magic = kMagic;
  uint8_t version = kVersion;
  uint8_t layout = 0;
  uint8_t chunk_bits = 12;
  uint8_t reserved = 0;
  uint64_t n_rows = 0, n_cols = 0;
  uint64_t group_cols = 0;  // 0: one scale
  uint64_t data_bytes = 0;  // scales, then codes
  uint32_t chunks_a_parity = 0;
  uint32_t reserved2 = 0;
  uint64_t checksum = 0;  // XXH3-64 of everything before
};
static_assert(sizeof(Header) == 56);
uint64_t checksum_of_header(const Header& header) {
  return checksum_of(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, checksum)));
}

// Where everything lies: [header][header][table][table][data][parity]. The table has a checksum for each chunk of data,
// then of parity, then one of itself.
struct Extents {
  uint64_t chunk_bytes, n_chunks, n_parity, table_bytes, table_begin, data_begin, parity_begin, end;
};
std::optional<Extents> extents_of(const Header& header) {
  Extents e{};
  e.chunk_bytes = uint64_t{1} << header.chunk_bits;
  if (header.data_bytes > uint64_t{1} << 48) return std::nullopt;
  e.n_chunks = (header.data_bytes + e.chunk_bytes - 1) / e.chunk_bytes;
  const uint64_t per_parity = header.chunks_a_parity;
  e.n_parity = per_parity == 0 ? 0 : (e.n_chunks + per_parity - 1) / per_parity;
  e.table_bytes = (e.n_chunks + e.n_parity + 1) * sizeof(uint64_t);
  e.table_begin = 2 * sizeof(Header);
  e.data_begin = e.table_begin + 2 * e.table_bytes;
  e.parity_begin = e.data_begin + header.data_bytes;
  e.end = e.parity_begin + e.n_parity * e.chunk_bytes;
  return e;
}

std::span<const std::byte> chunk_of(std::span<const std::byte> data, uint64_t chunk_bytes, uint64_t i) {
  return data.subspan(i * chunk_bytes, std::min(chunk_bytes, data.size() - i * chunk_bytes));
}
void add_parity(std::span<const std::byte> chunk, std::byte* parity) {
  for (size_t k = 0; k < chunk.size(); ++k) parity[k] ^= chunk[k];
}

Result<std::vector<std::byte>> smallest(int64_t n_rows, int64_t n_cols, std::span<const uint8_t> codes,
                                        const TernaryCodecs& codecs, TernaryLayout& layout) {
  std::vector<std::byte> best;
  for (const TernaryLayout candidate :
       {TernaryLayout::kBase3, TernaryLayout::kHybrid, TernaryLayout::kRunLength, TernaryLayout::kSparse}) {
    BN_ASSIGN_OR_RETURN(std::vector<std::byte> bytes, encode_ternary(candidate, n_rows, n_cols, codes, {}, {}, codecs));
    if (candidate != TernaryLayout::kBase3 && bytes.size() >= best.size()) continue;
    best = std::move(bytes);
    layout = candidate;
  }
  return best;
}

// The first of the two copies that is whole.
Result<Header> read_header(std::span<const std::byte> bytes, int64_t& n_repaired) {
  Header header;
  for (size_t copy = 0; copy < 2 && bytes.size() >= (copy + 1) * sizeof(Header); ++copy) {
    std::memcpy(&header, bytes.data() + copy * sizeof(Header), sizeof header);
    if (header.magic != kMagic || header.checksum != checksum_of_header(header)) continue;
    if (header.version != kVersion) {
      return unsupported("a packed ternary matrix of version {}, this build reads version {}", header.version,
                         kVersion);
    }
    const bool known = header.layout < kTernaryLayouts && header.chunk_bits >= kMinChunkBits &&
                       header.chunk_bits <= kMaxChunkBits && header.reserved == 0 && header.reserved2 == 0;
    const auto count = checked_mul(header.n_rows, header.n_cols);
    const bool shaped = header.n_rows > 0 && header.n_cols > 0 && count && *count < uint64_t{1} << 48;
    const bool grouped = header.group_cols == 0 || header.n_cols % header.group_cols == 0;
    if (!known || !shaped || !grouped ||
        ternary_layout_info(TernaryLayout(header.layout)).scales != ScaleKind::kApart) {
      return invalid_input("the header of a packed ternary matrix contradicts itself");
    }
    n_repaired += int64_t(copy);
    return header;
  }
  return invalid_input("no packed ternary matrix begins here, or both copies of its header are damaged");
}

Result<std::vector<uint64_t>> read_table(std::span<const std::byte> bytes, const Extents& e, int64_t& n_repaired) {
  std::vector<uint64_t> table(e.table_bytes / sizeof(uint64_t));
  for (uint64_t copy = 0; copy < 2; ++copy) {
    const auto stored = bytes.subspan(e.table_begin + copy * e.table_bytes, e.table_bytes);
    std::memcpy(table.data(), stored.data(), stored.size());
    if (table.back() != checksum_of(stored.first(stored.size() - sizeof(uint64_t)))) continue;
    n_repaired += int64_t(copy);
    return table;
  }
  return invalid_input("both copies of a packed ternary matrix's checksums are damaged");
}

// Data with every chunk as it was written.
class Repair {
 public:
  Repair(std::span<const std::byte> bytes, const Header& header, const Extents& extents, std::vector<uint64_t> table)
      : e_(extents), table_(std::move(table)), stored_(bytes) {
    const auto data = bytes.subspan(e_.data_begin, header.data_bytes);
    data_.assign(data.begin(), data.end());
  }
  Result<std::vector<std::byte>> run(int64_t& n_repaired) {
    std::vector<uint64_t> bad;
    for (uint64_t i = 0; i < e_.n_chunks; ++i) {
      if (checksum_of(chunk_of(data_, e_.chunk_bytes, i)) != table_[i]) bad.push_back(i);
    }
    for (const uint64_t i : bad) BN_RETURN_IF_ERROR(restore(i, bad));
    n_repaired += int64_t(bad.size());
    return std::move(data_);
  }

 private:
  Status restore(uint64_t chunk, const std::vector<uint64_t>& bad) {
    const auto lost = [&](const char* why) {
      return invalid_input("chunk {} of {} of a packed ternary matrix is damaged and cannot be restored: {}", chunk,
                           e_.n_chunks, why);
    };
    if (e_.n_parity == 0) return lost("the matrix was written without parity");
    const uint64_t parity = chunk % e_.n_parity;
    for (const uint64_t other : bad) {
      if (other != chunk && other % e_.n_parity == parity) return lost("another that shares its parity is damaged too");
    }
    const auto stored = stored_.subspan(e_.parity_begin + parity * e_.chunk_bytes, e_.chunk_bytes);
    if (checksum_of(stored) != table_[e_.n_chunks + parity]) return lost("its parity is damaged too");
    std::vector<std::byte> sum(stored.begin(), stored.end());
    for (uint64_t i = parity; i < e_.n_chunks; i += e_.n_parity) {
      if (i != chunk) add_parity(chunk_of(data_, e_.chunk_bytes, i), sum.data());
    }
    const size_t size = chunk_of(data_, e_.chunk_bytes, chunk).size();
    std::copy_n(sum.begin(), size, data_.begin() + int64_t(chunk * e_.chunk_bytes));
    if (checksum_of(chunk_of(data_, e_.chunk_bytes, chunk)) == table_[chunk]) return ok();
    return lost("its parity does not fit");
  }

  const Extents e_;
  std::vector<uint64_t> table_;
  std::span<const std::byte> stored_;
  std::vector<std::byte> data_;
};

}  // namespace

Result<std::vector<std::byte>> write_packed_ternary(int64_t n_rows, int64_t n_cols, std::span<const uint8_t> codes,
                                                    const TernaryScales& scales, const PackedTernaryOptions& options) {
  TernaryLayout layout = options.layout.value_or(TernaryLayout::kBase3);
  if (ternary_layout_info(layout).scales != ScaleKind::kApart || layout == TernaryLayout::kTL1 ||
      layout == TernaryLayout::kTL2) {
    return invalid_argument("{} is no layout for a packed matrix", ternary_layout_name(layout));
  }
  if (options.chunk_bits < kMinChunkBits || options.chunk_bits > kMaxChunkBits) {
    return invalid_argument("chunks of 2^{} bytes, expected 2^{} to 2^{}", options.chunk_bits, kMinChunkBits,
                            kMaxChunkBits);
  }
  std::vector<std::byte> payload;
  if (options.layout) {
    BN_ASSIGN_OR_RETURN(payload, encode_ternary(layout, n_rows, n_cols, codes, {}, {}, *options.codecs));
  } else {
    BN_ASSIGN_OR_RETURN(payload, smallest(n_rows, n_cols, codes, *options.codecs, layout));
  }
  const bool grouped = !scales.groups.empty();
  if (grouped && (scales.group_cols < 1 || n_cols % scales.group_cols != 0 ||
                  int64_t(scales.groups.size()) != n_rows * (n_cols / scales.group_cols))) {
    return invalid_argument("{} scales for groups of {} columns of [{}, {}]", scales.groups.size(), scales.group_cols,
                            n_rows, n_cols);
  }
  const std::span<const float> values = grouped ? std::span(scales.groups) : std::span(&scales.tensor, 1);
  Header header;
  header.layout = uint8_t(layout);
  header.chunk_bits = uint8_t(options.chunk_bits);
  header.n_rows = uint64_t(n_rows);
  header.n_cols = uint64_t(n_cols);
  header.group_cols = grouped ? uint64_t(scales.group_cols) : 0;
  header.data_bytes = values.size_bytes() + payload.size();
  header.chunks_a_parity = options.chunks_a_parity;
  header.checksum = checksum_of_header(header);
  const Extents e = *extents_of(header);
  std::vector<std::byte> out(e.end);
  for (size_t copy = 0; copy < 2; ++copy) std::memcpy(out.data() + copy * sizeof header, &header, sizeof header);
  std::memcpy(out.data() + e.data_begin, values.data(), values.size_bytes());
  std::copy(payload.begin(), payload.end(), out.begin() + int64_t(e.data_begin + values.size_bytes()));
  const auto data = std::span<const std::byte>(out).subspan(e.data_begin, header.data_bytes);
  std::vector<uint64_t> table;
  for (uint64_t i = 0; i < e.n_chunks; ++i) {
    const auto chunk = chunk_of(data, e.chunk_bytes, i);
    table.push_back(checksum_of(chunk));
    if (e.n_parity > 0) add_parity(chunk, out.data() + e.parity_begin + i % e.n_parity * e.chunk_bytes);
  }
  for (uint64_t p = 0; p < e.n_parity; ++p) {
    table.push_back(checksum_of(std::span(out).subspan(e.parity_begin + p * e.chunk_bytes, e.chunk_bytes)));
  }
  table.push_back(checksum_of(std::as_bytes(std::span(table))));
  for (size_t copy = 0; copy < 2; ++copy) {
    std::memcpy(out.data() + e.table_begin + copy * e.table_bytes, table.data(), e.table_bytes);
  }
  return out;
}

Result<PackedTernaryHeader> packed_ternary_header(std::span<const std::byte> bytes) {
  int64_t n_repaired = 0;
  BN_ASSIGN_OR_RETURN(const Header header, read_header(bytes, n_repaired));
  return PackedTernaryHeader{TernaryLayout(header.layout), int64_t(header.n_rows), int64_t(header.n_cols)};
}

Result<UnpackedTernary> read_packed_ternary(std::span<const std::byte> bytes, int64_t n_rows, int64_t n_cols,
                                            const TernaryCodecs& codecs) {
  UnpackedTernary out;
  BN_ASSIGN_OR_RETURN(const Header header, read_header(bytes, out.n_repaired));
  if (header.n_rows != uint64_t(n_rows) || header.n_cols != uint64_t(n_cols)) {
    return invalid_input("a packed ternary matrix of [{}, {}], expected [{}, {}]", header.n_rows, header.n_cols, n_rows,
                         n_cols);
  }
  const auto e = extents_of(header);
  const uint64_t n_scales = header.group_cols == 0 ? 1 : header.n_rows * (header.n_cols / header.group_cols);
  if (!e || e->end != bytes.size() || n_scales > header.data_bytes / sizeof(float)) {
    return invalid_input("a packed ternary matrix of {} bytes, which is not what its header says", bytes.size());
  }
  BN_ASSIGN_OR_RETURN(std::vector<uint64_t> table, read_table(bytes, *e, out.n_repaired));
  BN_ASSIGN_OR_RETURN(const std::vector<std::byte> data,
                      Repair(bytes, header, *e, std::move(table)).run(out.n_repaired));
  std::vector<float> scales(static_cast<size_t>(n_scales));
  std::memcpy(scales.data(), data.data(), n_scales * sizeof(float));
  for (const float scale : scales) {
    if (!std::isnormal(scale) || scale < 0.0f) {
      return invalid_input("a packed ternary matrix has the scale {}, expected a finite number above 0", scale);
    }
  }
  out.scales.tensor = scales.front();
  if (header.group_cols != 0) {
    out.scales.group_cols = int64_t(header.group_cols);
    out.scales.groups = std::move(scales);
  }
  out.layout = TernaryLayout(header.layout);
  const auto payload = std::span(data).subspan(n_scales * sizeof(float));
  if (has_fixed_size(out.layout)) BN_RETURN_IF_ERROR(check_ternary_view({out.layout, n_rows, n_cols, payload}));
  out.codes.resize(size_t(n_rows) * size_t(n_cols));
  BN_RETURN_IF_ERROR(decode_ternary({out.layout, n_rows, n_cols, payload}, 0, n_rows, out.codes.data(), codecs));
  return out;
}

}  // namespace bitnet
