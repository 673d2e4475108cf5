#include "format/npy.h"

#include "base/checked.h"
#include "base/file.h"

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
constexpr size_t kPrefix_bytes = 10;  // magic, version and length of version 1

struct Type {
  std::string_view descr;
  DType dtype;
};
constexpr std::array kTypes = std::to_array<Type>({{"<f4", DType::kF32},
                                                   {"<f8", DType::kF64},
                                                   {"<f2", DType::kF16},
                                                   {"|i1", DType::kI8},
                                                   {"<i2", DType::kI16},
                                                   {"<i4", DType::kI32},
                                                   {"<i8", DType::kI64},
                                                   {"|u1", DType::kU8},
                                                   {"<u2", DType::kU16},
                                                   {"<u4", DType::kU32},
                                                   {"<u8", DType::kU64},
                                                   {"|b1", DType::kBool}});

struct Header {
  DType dtype = DType::kF32;
  Shape shape;  // none: one value
  bool fortran_order = false;
  size_t data_begin = 0;
};

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

Result<Shape> parse_shape(std::string_view text, const std::string& name) {
  Shape shape;
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

Result<Header> parse_header(std::span<const std::byte> file, const std::string& name) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.size() < 12 || text.substr(0, 6) != kMagic) return invalid_input("{}: is no .npy file", name);
  const int version = uint8_t(text[6]);
  if (version < 1 || version > 3) return unsupported("{}: .npy version {}, expected 1, 2 or 3", name, version);
  const size_t length_bytes = version == 1 ? 2 : 4;
  uint32_t length = 0;
  std::memcpy(&length, file.data() + 8, length_bytes);
  Header header;
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
  const std::string_view named = descr->substr(1, descr->size() - 2);
  const auto* type = std::find_if(kTypes.begin(), kTypes.end(), [&](const Type& t) { return t.descr == named; });
  if (type == kTypes.end()) {
    return unsupported("{}: values of type {}, expected little-endian floats, integers or bool", name, named);
  }
  header.dtype = type->dtype;
  BN_ASSIGN_OR_RETURN(header.shape, parse_shape(shape->substr(1), name));
  if (*order != "False" && *order != "True") return invalid_input("{}: fortran_order is {}", name, *order);
  header.fortran_order = *order == "True";
  uint64_t count = 1;
  for (const int64_t dim : header.shape) {
    const auto product = checked_mul(count, uint64_t(dim));
    if (!product || *product > file.size()) {
      return invalid_input("{}: the shape has more values than {} bytes hold", name, file.size());
    }
    count = *product;
  }
  const uint64_t size_bytes = count * uint64_t(dtype_info(header.dtype).block_bytes);
  if (file.size() - header.data_begin != size_bytes) {
    return invalid_input("{}: {} values of {} take {} bytes, found {}", name, count, named, size_bytes,
                         file.size() - header.data_begin);
  }
  return header;
}

std::string header_text(std::string_view descr, const Shape& shape) {
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': (", descr);
  for (const int64_t dim : shape) text += fmt::format("{}, ", dim);
  if (shape.size() > 1) text.resize(text.size() - 2);
  if (shape.size() == 1) text.pop_back();
  text += "), }";
  // Data starts at a multiple of 64 bytes, behind magic, version, length, and the line feed that ends the header.
  text.append((64 - (kPrefix_bytes + text.size() + 1) % 64) % 64, ' ');
  return text + '\n';
}

}  // namespace

Result<Tensor> parse_npy(std::span<const std::byte> file, const std::string& name) {
  BN_ASSIGN_OR_RETURN(Header header, parse_header(file, name));
  if (header.fortran_order) std::reverse(header.shape.begin(), header.shape.end());
  BN_ASSIGN_OR_RETURN(Tensor values, Tensor::zeros(header.dtype, header.shape));
  const auto data = file.subspan(header.data_begin);
  if (!data.empty()) std::memcpy(values.bytes().data(), data.data(), data.size());
  if (header.dtype == DType::kBool &&
      std::any_of(data.begin(), data.end(), [](std::byte b) { return b > std::byte{1}; })) {
    return invalid_input("{}: a bool that is neither 0 nor 1", name);
  }
  if (!header.fortran_order) return values;
  std::vector<int64_t> backwards(header.shape.size());
  for (size_t i = 0; i < backwards.size(); ++i) backwards[i] = int64_t(backwards.size() - 1 - i);
  BN_ASSIGN_OR_RETURN(const TensorView turned, values.view().permute(backwards));
  return Tensor::copy_of(turned);
}

Result<Tensor> read_npy(const std::string& path) {
  BN_ASSIGN_OR_RETURN(const std::string contents, read_file(path));
  return parse_npy(std::as_bytes(std::span(contents)), path);
}

Status write_npy(const std::string& path, TensorView values) {
  const auto* type =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const Type& t) { return t.dtype == values.dtype(); });
  if (type == kTypes.end()) {
    Error error = unsupported("{}: NumPy has no type {}", path, dtype_info(values.dtype()).name);
    error.suggestion = "cast the values to F32 first";
    return error;
  }
  BN_ASSIGN_OR_RETURN(const Tensor in_order, Tensor::copy_of(values));
  const std::string header = header_text(type->descr, values.shape());
  std::string prefix(kMagic);
  prefix += {'\x01', '\x00', char(header.size() & 255), char(header.size() >> 8)};
  BN_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  BN_RETURN_IF_ERROR(file.write(prefix));
  BN_RETURN_IF_ERROR(file.write(header));
  BN_RETURN_IF_ERROR(file.write(in_order.bytes()));
  return file.commit();
}

Result<std::vector<int32_t>> npy_ids(std::span<const std::byte> file, const std::string& name) {
  BN_ASSIGN_OR_RETURN(const Tensor values, parse_npy(file, name));
  const DType type = values.dtype();
  if (!is_integer(type) || type == DType::kU64) {
    return invalid_input("{}: token ids are integers of up to 63 bits, found {}", name, dtype_info(type).name);
  }
  BN_ASSIGN_OR_RETURN(const std::vector<int64_t> wide, to_vector<int64_t>(values));
  const auto bad = std::find_if(wide.begin(), wide.end(), [](int64_t v) { return v < 0 || v > INT32_MAX; });
  if (bad != wide.end()) return invalid_input("{}: value {} is {}, no token id", name, bad - wide.begin(), *bad);
  return std::vector<int32_t>(wide.begin(), wide.end());
}

}  // namespace bitnet
