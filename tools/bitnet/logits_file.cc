#include "logits_file.h"

#include "format/safetensors.h"

#include <algorithm>

namespace bitnet::cli {
namespace {

Result<std::vector<int32_t>> read_int32(const SafetensorsFile& file, const StoredTensor& tensor) {
  if (tensor.dtype != DType::kI32 || tensor.shape.size() != 1) {
    return invalid_input("{}: tensor {} is {} {}, expected one dimension of I32", file.name(), tensor.name,
                         dtype_info(tensor.dtype).name, shape_string(tensor.shape));
  }
  std::vector<int32_t> values(size_t(tensor.shape[0]));
  BN_RETURN_IF_ERROR(file.read(tensor, 0, std::as_writable_bytes(std::span(values))));
  return values;
}

}  // namespace

LogitsWriter::LogitsWriter(SafetensorsWriter writer)
    : writer_(std::make_unique<SafetensorsWriter>(std::move(writer))) {}
LogitsWriter::~LogitsWriter() = default;

Result<std::unique_ptr<LogitsWriter>> LogitsWriter::create(const std::string& path, const std::vector<int32_t>& ids,
                                                           const std::vector<int32_t>& positions, int64_t vocab_size) {
  BN_ASSIGN_OR_RETURN(SafetensorsWriter created, SafetensorsWriter::create(path));
  std::unique_ptr<LogitsWriter> writer(new LogitsWriter(std::move(created)));
  writer->ids_ = ids;
  writer->positions_ = positions;
  BN_RETURN_IF_ERROR(writer->writer_->add_tensor("logits", DType::kF32, {int64_t(positions.size()), vocab_size}));
  BN_RETURN_IF_ERROR(writer->writer_->add_tensor("ids", DType::kI32, {int64_t(ids.size())}));
  BN_RETURN_IF_ERROR(writer->writer_->add_tensor("positions", DType::kI32, {int64_t(positions.size())}));
  BN_RETURN_IF_ERROR(writer->writer_->begin_data());
  return writer;
}

Status LogitsWriter::add(std::span<const float> row) { return writer_->write_data(std::as_bytes(row)); }

Status LogitsWriter::finish() {
  BN_RETURN_IF_ERROR(writer_->write_data(std::as_bytes(std::span(ids_))));
  BN_RETURN_IF_ERROR(writer_->write_data(std::as_bytes(std::span(positions_))));
  return writer_->finish();
}

LogitsReader::LogitsReader(SafetensorsFile file) : file_(std::make_unique<SafetensorsFile>(std::move(file))) {}
LogitsReader::~LogitsReader() = default;

Result<std::unique_ptr<LogitsReader>> LogitsReader::open(const std::string& path, const std::vector<int32_t>& ids,
                                                         int64_t vocab_size) {
  BN_ASSIGN_OR_RETURN(SafetensorsFile opened, SafetensorsFile::open(path));
  std::unique_ptr<LogitsReader> reader(new LogitsReader(std::move(opened)));
  const SafetensorsFile& file = *reader->file_;
  const StoredTensor* const logits = file.find("logits");
  const StoredTensor* const stored_ids = file.find("ids");
  if (logits == nullptr || stored_ids == nullptr) {
    Error error = invalid_input("{}: holds no tensors `logits` and `ids`", path);
    error.suggestion = "a file that 'bitnet perplexity --save-logits' or 'bitnet logits -o' wrote";
    return error;
  }
  if (logits->dtype != DType::kF32 || logits->shape.size() != 2 || logits->shape[1] != vocab_size) {
    return invalid_input("{}: tensor logits is {} {}, expected F32 [n, {}]", path, dtype_info(logits->dtype).name,
                         shape_string(logits->shape), vocab_size);
  }
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> base_ids, read_int32(file, *stored_ids));
  if (base_ids != ids) {
    const size_t same =
        size_t(std::mismatch(base_ids.begin(), base_ids.end(), ids.begin(), ids.end()).first - base_ids.begin());
    Error error = invalid_input("{}: made from other token ids: {} tokens against {} here, different from token {} on",
                                path, base_ids.size(), ids.size(), same);
    error.suggestion = "the same text, vocabulary, --no-bos and --max-tokens as when it was written";
    return error;
  }
  std::vector<int32_t> positions;
  if (const StoredTensor* const stored = file.find("positions")) {
    BN_ASSIGN_OR_RETURN(positions, read_int32(file, *stored));
  } else {
    for (size_t i = 0; i < ids.size(); ++i) positions.push_back(int32_t(i) + 1);
  }
  if (int64_t(positions.size()) != logits->shape[0]) {
    return invalid_input("{}: {} positions for {} rows of logits", path, positions.size(), logits->shape[0]);
  }
  reader->logits_ = logits;
  reader->row_.resize(size_t(vocab_size));
  reader->row_of_.assign(ids.size() + 1, -1);
  for (size_t row = 0; row < positions.size(); ++row) {
    if (positions[row] < 0 || size_t(positions[row]) > ids.size()) {
      return invalid_input("{}: positions[{}] is {}, expected 0 to {}", path, row, positions[row], ids.size());
    }
    reader->row_of_[size_t(positions[row])] = int64_t(row);
  }
  return reader;
}

Result<std::span<const float>> LogitsReader::predicting(int64_t index) {
  const int64_t row = row_of_[size_t(index)];
  if (row < 0) {
    Error error = invalid_input("{}: has no logits that predict token {}", file_->name(), index);
    error.suggestion = "the same --ctx and --stride as when it was written";
    return error;
  }
  BN_RETURN_IF_ERROR(
      file_->read(*logits_, uint64_t(row) * row_.size() * sizeof(float), std::as_writable_bytes(std::span(row_))));
  return std::span<const float>(row_);
}

}  // namespace bitnet::cli
