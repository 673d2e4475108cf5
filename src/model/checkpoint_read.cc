#include "base/file.h"
#include "base/half.h"
#include "format/checksum.h"
#include "model/checkpoint_state.h"
#include "quant/blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

using State = Checkpoint::State;

constexpr uint64_t kPiece_bytes = uint64_t{4} << 20;

// Where the float16 scales of a block stand; none: plain values of 4 or 2 bytes.
struct ScaleOffsets {
  int n = 0;
  size_t at[2] = {0, 0};
};
ScaleOffsets scale_offsets(DType type) {
  switch (type) {
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kQ8_0:
    case DType::kQ1_0:
    case DType::kQ2_0: return {1, {0, 0}};
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K: return {2, {0, 2}};
    case DType::kQ2_K: return {2, {80, 82}};
    case DType::kQ3_K: return {1, {108, 0}};
    case DType::kQ6_K: return {1, {208, 0}};
    case DType::kTQ1_0: return {1, {52, 0}};
    case DType::kTQ2_0: return {1, {64, 0}};
    default: return {};
  }
}

// The exponent bits of one value, or of a block's scale, are all ones.
template <class Bits>
bool is_nonfinite(const std::byte* at, Bits exponent) {
  Bits bits;
  std::memcpy(&bits, at, sizeof bits);
  return (bits & exponent) == exponent;
}

// First element of an array of floats whose exponent is all ones. No exponent is larger, so the largest of a chunk
// tells whether there is any; a fixed length becomes vector code at every optimisation level.
template <class Bits>
std::optional<int64_t> find_in_array(std::span<const std::byte> bytes, Bits exponent) {
  constexpr int64_t kChunk = 256;
  const int64_t n = int64_t(bytes.size() / sizeof(Bits));
  Bits values[kChunk] = {};
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t count = std::min(kChunk, n - begin);
    std::memcpy(values, bytes.data() + size_t(begin) * sizeof(Bits), size_t(count) * sizeof(Bits));
    Bits largest = 0;
    for (int64_t i = 0; i < kChunk; ++i) largest = std::max(largest, Bits(values[i] & exponent));
    if (largest != exponent) continue;
    for (int64_t i = 0; i < count; ++i) {
      if ((values[i] & exponent) == exponent) return begin + i;
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<int64_t> find_nonfinite(DType type, std::span<const std::byte> bytes) {
  if (type == DType::kF32) return find_in_array<int32_t>(bytes, 0x7f800000);
  if (type == DType::kF16) return find_in_array<int16_t>(bytes, 0x7c00);
  if (type == DType::kBF16) return find_in_array<int16_t>(bytes, 0x7f80);
  const DTypeInfo& info = dtype_info(type);
  const ScaleOffsets offsets = scale_offsets(type);
  const int64_t n_blocks = int64_t(bytes.size()) / info.block_bytes;
  for (int64_t block = 0; block < n_blocks; ++block) {
    for (int i = 0; i < offsets.n; ++i) {
      const std::byte* at = bytes.data() + block * info.block_bytes + offsets.at[i];
      if (is_nonfinite<uint16_t>(at, 0x7c00u)) return block * info.block_size;
    }
  }
  return std::nullopt;
}

Status State::read(const LocatedTensor& tensor, uint64_t offset_bytes, std::span<std::byte> out) const {
  if (gguf) return gguf->read(*tensor.tensor, offset_bytes, out);
  if (microsoft) return microsoft->archive().read(*tensor.tensor, offset_bytes, out);
  return tensor.file->read(*tensor.tensor, offset_bytes, out);
}

Result<TensorBytes> State::read_all(const LocatedTensor& tensor) const {
  const size_t size_bytes = size_t(tensor.tensor->size_bytes);
  TensorBytes bytes{std::shared_ptr<std::byte[]>(new std::byte[size_bytes]), size_bytes};
  BN_RETURN_IF_ERROR(read(tensor, 0, {bytes.data.get(), size_bytes}));
  // A packed matrix has checksums of its own, and parity that may restore what they find.
  const bool verify = options.verify_checksums && !is_packed(*tensor.tensor);
  if (verify) BN_RETURN_IF_ERROR(checksums.verify(*tensor.tensor, bytes.span()));
  return bytes;
}

Status State::verify_in_pieces(const LocatedTensor& tensor) const {
  if (!options.verify_checksums || checksums.kind() != GgufChecksums::Kind::kValid) return ok();
  const uint64_t size_bytes = tensor.tensor->size_bytes;
  std::vector<std::byte> piece(size_t(std::min(kPiece_bytes, size_bytes)));
  Checksum checksum = begin_checksum(*tensor.tensor);
  for (uint64_t at = 0; at < size_bytes; at += kPiece_bytes) {
    const std::span<std::byte> part(piece.data(), size_t(std::min(kPiece_bytes, size_bytes - at)));
    BN_RETURN_IF_ERROR(read(tensor, at, part));
    checksum.update(part);
  }
  return checksums.verify(*tensor.tensor, checksum);
}

Result<float> State::read_scalar(const LocatedTensor& tensor) const {
  BN_ASSIGN_OR_RETURN(const TensorBytes bytes, read_all(tensor));
  float value = 0;
  BN_RETURN_IF_ERROR(dequantize(tensor.tensor->dtype, bytes.span(), 1, &value));
  if (std::isnormal(value) && value > 0) return value;
  return invalid_input("{} is {}, expected a finite number above 0", label(tensor), value);
}

Result<std::vector<float>> Checkpoint::read_vector(const WeightSpec& spec) const {
  const LocatedTensor tensor = state_->find_weight(spec);
  BN_ASSIGN_OR_RETURN(const TensorBytes bytes, state_->read_all(tensor));
  std::vector<float> values(size_t(spec.shape[0]));
  BN_RETURN_IF_ERROR(dequantize(tensor.tensor->dtype, bytes.span(), spec.shape[0], values.data()));
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return invalid_input("{}: value {} is {}, expected a finite number", state_->label(tensor), i, values[i]);
    }
  }
  return values;
}

Result<FloatSource> Checkpoint::table(const WeightSpec& spec, bool verified) const {
  const LocatedTensor tensor = state_->find_weight(spec);
  if (!verified) BN_RETURN_IF_ERROR(state_->verify_in_pieces(tensor));
  const DType type = tensor.tensor->dtype;
  BN_ASSIGN_OR_RETURN(const uint64_t row_bytes, tensor_bytes(type, {spec.shape[1]}));
  FloatSource source;
  source.dtype = type;
  source.n_rows = spec.shape[0];
  source.n_cols = spec.shape[1];
  // The source may outlive the checkpoint by far and keeps only the open file.
  auto read_rows = [file = state_->file_of(tensor), type, row_bytes, begin = tensor.tensor->offset_bytes,
                    n_cols = spec.shape[1],
                    label = state_->label(tensor)](int64_t row_begin, int64_t n_rows, std::byte* out) -> Status {
    const std::span<std::byte> rows(out, size_t(n_rows) * row_bytes);
    BN_RETURN_IF_ERROR(file->read_at(begin + uint64_t(row_begin) * row_bytes, rows));
    const auto bad = find_nonfinite(type, rows);
    if (!bad) return ok();
    return invalid_input("{}: row {} holds a value at or after column {} that is not finite", label,
                         row_begin + *bad / n_cols, *bad % n_cols);
  };
  source.read_rows = std::move(read_rows);
  return state_->options.widen ? widened(std::move(source)) : std::move(source);
}

FloatSource widened(FloatSource source) {
  if (has_products(source.dtype)) return source;
  const auto row_bytes = tensor_bytes(source.dtype, {source.n_cols});
  source.read_rows = [read = std::move(source.read_rows), type = source.dtype, n_cols = source.n_cols,
                      row_bytes = row_bytes ? *row_bytes : 0](int64_t row_begin, int64_t n_rows,
                                                              std::byte* out) -> Status {
    std::vector<std::byte> stored(size_t(n_rows) * row_bytes);
    BN_RETURN_IF_ERROR(read(row_begin, n_rows, stored.data()));
    std::vector<float> values(size_t(n_rows * n_cols));
    BN_RETURN_IF_ERROR(dequantize_rows(type, stored, n_rows, n_cols, values.data()));
    std::memcpy(out, values.data(), values.size() * sizeof(float));
    return ok();
  };
  source.dtype = DType::kF32;
  return source;
}

}  // namespace bitnet
