#include "format/npy.h"

#include "base/checked.h"
#include "base/half.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>

namespace bitnet {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaxHeader_bytes = 65536;

struct Type {
  std::string_view descr;
  size_t bytes;
};
constexpr std::array kTypes = std::to_array<Type>(
    {{"<f4", 4}, {"<f8", 8}, {"<f2", 2}, {"<i4", 4}, {"<i8", 8}, {"<u2", 2}, {"<u4", 4}, {"|u1", 1}});
const Type* find_type(std::string_view descr) {
  const auto* type = std::find_if(kTypes.begin(), kTypes.end(), [&](const Type& t) { return t.descr == descr; });
  return type == kTypes.end() ? nullptr : type;
}

// The header is a Python dictionary of three known keys: what stands behind 'key': up to `end`.
std::optional<std::string_view> value_of(std::string_view header, std::string_view key, std::string_view end) {
  const size_t at = header.find(fmt::format("'{}':", key));
  if (at == std::string_view::npos) return std::nullopt;
  const size_t begin = header.find_first_not_of(' ', at + key.size() + 3);
  if (begin == std::string_view::npos) return std::nullopt;
  const size_t stop = header.find_first_of(end, begin + 1);
  if (stop == std::string_view::npos) return std::nullopt;
  return header.substr(begin, stop - begin);
}

Result<std::vector<int64_t>> parse_shape(std::string_view text, const std::string& name) {
  std::vector<int64_t> shape;
  while (!text.empty()) {
    const size_t begin = text.find_first_not_of(" ,");
    if (begin == std::string_view::npos) break;
    int64_t dim = 0;
    const auto [end, error] = std::from_chars(text.data() + begin, text.data() + text.size(), dim);
    if (error != std::errc() || dim < 0 || shape.size() >= 32) {
      return invalid_input("{}: the shape ({}) is no list of numbers", name, text);
    }
    shape.push_back(dim);
    text.remove_prefix(size_t(end - text.data()));
  }
  return shape;
}

template <class Stored, class Out, class Convert>
Status read_values(std::span<const std::byte> data, std::vector<Out>& out, const Convert& convert) {
  for (size_t i = 0; i < out.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, data.data() + i * sizeof stored, sizeof stored);
    BN_ASSIGN_OR_RETURN(out[i], convert(stored, i));
  }
  return ok();
}

}  // namespace

Result<NpyHeader> parse_npy(std::span<const std::byte> file, const std::string& name) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.size() < 12 || text.substr(0, 6) != kMagic) return invalid_input("{}: is no .npy file", name);
  const int version = uint8_t(text[6]);
  if (version < 1 || version > 3) return unsupported("{}: .npy version {}, expected 1, 2 or 3", name, version);
  const size_t length_bytes = version == 1 ? 2 : 4;
  uint32_t length = 0;
  std::memcpy(&length, file.data() + 8, length_bytes);
  NpyHeader header;
  header.data_begin = 8 + length_bytes + length;
  if (length > kMaxHeader_bytes || header.data_begin > file.size()) {
    return invalid_input("{}: the header of {} bytes does not fit in {} bytes", name, length, file.size());
  }
  const std::string_view dictionary = text.substr(8 + length_bytes, length);
  const auto descr = value_of(dictionary, "descr", ",}"), order = value_of(dictionary, "fortran_order", ",}");
  const auto shape = value_of(dictionary, "shape", ")");
  if (!descr || !order || !shape || descr->size() < 3 || shape->front() != '(') {
    return invalid_input("{}: the header lacks descr, fortran_order or shape", name);
  }
  header.descr = std::string(descr->substr(1, descr->size() - 2));
  const Type* type = find_type(header.descr);
  if (type == nullptr)
    return unsupported("{}: values of type {}, expected <f4, <f8, <f2, <i4, <i8, <u2, <u4 or |u1", name, header.descr);
  BN_ASSIGN_OR_RETURN(header.shape, parse_shape(shape->substr(1), name));
  if (*order != "False" && header.shape.size() > 1) return unsupported("{}: an array in Fortran order", name);
  uint64_t count = 1;
  for (const int64_t dim : header.shape) {
    const auto product = checked_mul(count, uint64_t(dim));
    if (!product || *product > file.size()) {
      return invalid_input("{}: the shape has more values than {} bytes hold", name, file.size());
    }
    count = *product;
  }
  if (file.size() - header.data_begin != count * type->bytes) {
    return invalid_input("{}: {} values of {} take {} bytes, found {}", name, count, header.descr, count * type->bytes,
                         file.size() - header.data_begin);
  }
  header.n_values = int64_t(count);
  return header;
}

Result<std::vector<float>> npy_floats(std::span<const std::byte> file, const std::string& name) {
  BN_ASSIGN_OR_RETURN(const NpyHeader header, parse_npy(file, name));
  std::vector<float> out(size_t(header.n_values));
  const auto data = file.subspan(header.data_begin);
  const auto plain = [](auto v, size_t) -> Result<float> { return float(v); };
  if (header.descr == "<f4") BN_RETURN_IF_ERROR(read_values<float>(data, out, plain));
  if (header.descr == "<f8") BN_RETURN_IF_ERROR(read_values<double>(data, out, plain));
  if (header.descr == "<f2") {
    BN_RETURN_IF_ERROR(
        read_values<uint16_t>(data, out, [](uint16_t v, size_t) -> Result<float> { return f16_to_f32(v); }));
  }
  if (header.descr == "<i4") BN_RETURN_IF_ERROR(read_values<int32_t>(data, out, plain));
  if (header.descr == "<i8") BN_RETURN_IF_ERROR(read_values<int64_t>(data, out, plain));
  if (header.descr == "<u2") BN_RETURN_IF_ERROR(read_values<uint16_t>(data, out, plain));
  if (header.descr == "<u4") BN_RETURN_IF_ERROR(read_values<uint32_t>(data, out, plain));
  if (header.descr == "|u1") BN_RETURN_IF_ERROR(read_values<uint8_t>(data, out, plain));
  return out;
}

Result<std::vector<int32_t>> npy_ids(std::span<const std::byte> file, const std::string& name) {
  BN_ASSIGN_OR_RETURN(const NpyHeader header, parse_npy(file, name));
  std::vector<int32_t> out(size_t(header.n_values));
  const auto data = file.subspan(header.data_begin);
  const auto id = [&](auto v, size_t at) -> Result<int32_t> {
    if (v < 0 || int64_t(v) > INT32_MAX) return invalid_input("{}: value {} is {}, no token id", name, at, v);
    return int32_t(v);
  };
  const auto unsigned_id = [&](auto v, size_t at) -> Result<int32_t> { return id(int64_t(v), at); };
  if (header.descr[1] == 'f') return invalid_input("{}: token ids are integers, found {}", name, header.descr);
  if (header.descr == "<i4") BN_RETURN_IF_ERROR(read_values<int32_t>(data, out, id));
  if (header.descr == "<i8") BN_RETURN_IF_ERROR(read_values<int64_t>(data, out, id));
  if (header.descr == "<u2") BN_RETURN_IF_ERROR(read_values<uint16_t>(data, out, unsigned_id));
  if (header.descr == "<u4") BN_RETURN_IF_ERROR(read_values<uint32_t>(data, out, unsigned_id));
  if (header.descr == "|u1") BN_RETURN_IF_ERROR(read_values<uint8_t>(data, out, unsigned_id));
  return out;
}

}  // namespace bitnet
