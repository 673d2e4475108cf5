#include "format/byte_reader.h"

#include <algorithm>
#include <cstring>

namespace bitnet {
namespace {
constexpr uint64_t kWindow_bytes = uint64_t{256} << 10;
}

Status ByteReader::check_left(uint64_t n, const char* field) const {
  if (n <= remaining()) return ok();
  Error error = invalid_input("{}: byte {}: {} needs {} bytes, but the file ends at byte {}", name_, offset_, field, n,
                              size_bytes_);
  error.suggestion = "The file is damaged or was not downloaded in full; fetch it again.";
  return error;
}

Result<std::span<const std::byte>> ByteReader::take(uint64_t n, const char* field) {
  BN_RETURN_IF_ERROR(check_left(n, field));
  if (offset_ - view_offset_ + n > view_.size()) {  // only with a file: in memory the view is everything
    window_.resize(std::min(std::max(n, kWindow_bytes), remaining()));
    BN_RETURN_IF_ERROR(file_->read_at(offset_, window_));
    view_ = window_;
    view_offset_ = offset_;
  }
  const auto bytes = view_.subspan(size_t(offset_ - view_offset_), size_t(n));
  offset_ += n;
  return bytes;
}

Status ByteReader::rewind(uint64_t offset) {
  if (offset < view_offset_ || offset > offset_) return make_error(ErrorCode::kInternal, "{}: rewind too far", name_);
  offset_ = offset;
  return ok();
}

Status ByteReader::read(std::span<std::byte> out, const char* field) {
  BN_RETURN_IF_ERROR(check_left(out.size(), field));
  while (!out.empty()) {
    const size_t n = std::min<size_t>(out.size(), kWindow_bytes);
    BN_ASSIGN_OR_RETURN(const auto bytes, take(n, field));
    std::memcpy(out.data(), bytes.data(), n);
    out = out.subspan(n);
  }
  return ok();
}

}  // namespace bitnet
