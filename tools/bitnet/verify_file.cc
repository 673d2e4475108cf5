// The checks of `bitnet verify` that read the file: every value once.
#include "format/gguf.h"
#include "format/gguf_checksums.h"
#include "interrupt.h"
#include "model/checkpoint.h"
#include "output.h"
#include "progress.h"
#include "quant/blocks.h"
#include "verify_checks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

namespace bitnet::cli {
namespace {

constexpr int64_t kRowsAtOnce = 64;

struct Totals {
  int64_t n_linears = 0;
  int64_t n_codes = 0;
  std::array<int64_t, 3> histogram{};  // of the codes 0, 1, 2: -1, 0, +1
  int64_t n_scales = 0;
  float smallest_scale = INFINITY, largest_scale = 0;
  int64_t n_floats = 0;  // of norms, tables and float linears
};

Status check_finite(std::span<const float> values, const std::string& name) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i]))
      return invalid_input("{}: value {} is {}, expected a finite number", name, i, values[i]);
  }
  return ok();
}

Status check_floats(const FloatSource& source, const std::string& name, Totals& totals) {
  BN_ASSIGN_OR_RETURN(const uint64_t row_bytes, tensor_bytes(source.dtype, {1, source.n_cols}));
  std::vector<std::byte> bytes(row_bytes * kRowsAtOnce);
  std::vector<float> values(size_t(source.n_cols * kRowsAtOnce));
  for (int64_t row = 0; row < source.n_rows; row += kRowsAtOnce) {
    const int64_t n = std::min(kRowsAtOnce, source.n_rows - row);
    BN_RETURN_IF_ERROR(source.read_rows(row, n, bytes.data()));
    BN_RETURN_IF_ERROR(
        dequantize(source.dtype, std::span(bytes).first(row_bytes * size_t(n)), n * source.n_cols, values.data()));
    BN_RETURN_IF_ERROR(
        check_finite(std::span(values).first(size_t(n * source.n_cols)), fmt::format("{} from row {} on", name, row)));
  }
  totals.n_floats += source.n_rows * source.n_cols;
  return ok();
}

Status check_ternary(const TernarySource& source, const std::string& name, Totals& totals) {
  std::vector<uint8_t> codes(size_t(source.n_cols * kRowsAtOnce));
  for (int64_t row = 0; row < source.n_rows; row += kRowsAtOnce) {
    const int64_t n = std::min(kRowsAtOnce, source.n_rows - row);
    BN_RETURN_IF_ERROR(source.read_codes(row, n, codes.data()));
    for (const uint8_t code : std::span(codes).first(size_t(n * source.n_cols))) {
      if (code > 2) return invalid_input("{}: a code from row {} on is {}, expected 0, 1 or 2", name, row, code);
      ++totals.histogram[code];
    }
  }
  totals.n_codes += source.n_rows * source.n_cols;
  const auto check_scale = [&](float scale) {
    ++totals.n_scales;
    totals.smallest_scale = std::min(totals.smallest_scale, scale);
    totals.largest_scale = std::max(totals.largest_scale, scale);
    return std::isfinite(scale) && scale > 0;
  };
  const TernaryScales& scales = source.scales;
  if (scales.groups.empty() && !check_scale(scales.tensor)) {
    return invalid_input("{}: the scale is {}, expected a positive finite number", name, scales.tensor);
  }
  for (const float scale : scales.groups) {
    if (!check_scale(scale)) return invalid_input("{}: a scale is {}, expected a positive finite number", name, scale);
  }
  return ok();
}

Status check_weight(const Checkpoint& checkpoint, const WeightSpec& spec, Totals& totals) {
  const std::string& name = checkpoint.is_gguf() ? spec.gguf_name : spec.hf_name;
  switch (spec.kind) {
    case WeightKind::kVector: {
      BN_ASSIGN_OR_RETURN(const std::vector<float> values, checkpoint.read_vector(spec));
      totals.n_floats += int64_t(values.size());
      return check_finite(values, name);
    }
    case WeightKind::kTable: {
      BN_ASSIGN_OR_RETURN(const FloatSource source, checkpoint.table(spec));
      return check_floats(source, name, totals);
    }
    case WeightKind::kLinear: {
      ++totals.n_linears;
      BN_ASSIGN_OR_RETURN(const LinearSource linear, checkpoint.linear(spec));
      if (linear.ternary()) return check_ternary(std::get<TernarySource>(linear.weight), name, totals);
      return check_floats(std::get<FloatSource>(linear.weight), name, totals);
    }
  }
  return ok();
}

const char* kind_name(WeightKind kind) {
  return kind == WeightKind::kLinear ? "linear layers" : kind == WeightKind::kTable ? "embedding and head" : "norms";
}

std::string summary(WeightKind kind, const Totals& totals) {
  if (kind != WeightKind::kLinear) return fmt::format("{} finite values", totals.n_floats);
  std::string text = fmt::format("{} matrices", totals.n_linears);
  if (totals.n_codes > 0) {
    text +=
        fmt::format("; {} ternary codes, {:.1f}% zero, {:.1f}% +1; {} scales from {:.4g} to {:.4g}",
                    human_count(uint64_t(totals.n_codes)), 100 * double(totals.histogram[1]) / double(totals.n_codes),
                    100 * double(totals.histogram[2]) / double(totals.n_codes), totals.n_scales, totals.smallest_scale,
                    totals.largest_scale);
  }
  if (totals.n_floats > 0) text += fmt::format("; {} finite float weights", human_count(uint64_t(totals.n_floats)));
  return text;
}

void check_weights(const Checkpoint& checkpoint, VerifyReport& report) {
  Progress progress("Checking weights");
  int64_t n_done = 0, n_all = 0;
  for (const WeightSpec& spec : checkpoint.weights()) n_all += spec.n_values();
  for (const WeightKind kind : {WeightKind::kVector, WeightKind::kTable, WeightKind::kLinear}) {
    Totals totals;
    std::optional<Error> failure;
    for (const WeightSpec& spec : checkpoint.weights()) {
      if (spec.kind != kind || failure) continue;
      if (const Status checked = check_weight(checkpoint, spec, totals); !checked) failure = checked.error();
      progress.update(double(n_done += spec.n_values()) / double(n_all));
    }
    report.add(kind_name(kind), failure ? Result<std::string>(*failure) : summary(kind, totals));
  }
}

Result<std::string> check_checksums(const Checkpoint& checkpoint) {
  if (!checkpoint.is_gguf()) return std::string("this format has none");
  const GgufFile& file = *checkpoint.gguf();
  BN_ASSIGN_OR_RETURN(const GgufChecksums checksums, GgufChecksums::read(file));
  if (checksums.kind() == GgufChecksums::Kind::kNone) {
    return std::string("the file carries none (bitnet convert writes them)");
  }
  if (checksums.kind() == GgufChecksums::Kind::kOutdated) {
    return std::string("the file's are of other tensors: another program rewrote it");
  }
  for (const StoredTensor& tensor : file.tensors()) {
    BN_ASSIGN_OR_RETURN(const std::vector<std::byte> data, file.read(tensor));
    BN_RETURN_IF_ERROR(checksums.verify(tensor, data));
  }
  return fmt::format("{} tensors match their XXH3-64", file.tensors().size());
}

Result<std::string> check_vocabulary(const Checkpoint& checkpoint) {
  if (!checkpoint.vocabulary()) return std::string("none: the model runs on token ids");
  BN_ASSIGN_OR_RETURN(const Tokenizer tokenizer, make_tokenizer(*checkpoint.vocabulary(), checkpoint.path()));
  const int64_t n_rows = checkpoint.config().vocab_size;
  if (tokenizer.vocab_size() > n_rows) {
    return invalid_input("the vocabulary has {} tokens, but the embedding only {} rows", tokenizer.vocab_size(),
                         n_rows);
  }
  const bool byte_level = checkpoint.vocabulary()->kind == VocabularyKind::kByteLevelBpe;
  const std::string samples[] = {"Hello, world!", "  two  spaces\n\n\ttab ", "naïve café, 中文, Ελλάδα, 🙂",
                                 "1234567.89 don't 'll",
                                 byte_level ? std::string("\xff\xfe\x00\x80 not UTF-8", 15) : std::string()};
  EncodeOptions options;
  options.add_bos = false;
  for (const std::string& sample : samples) {
    BN_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.encode(sample, options));
    BN_ASSIGN_OR_RETURN(const std::string text, tokenizer.decode(ids));
    // SentencePiece puts a space in front of a text.
    if (text != sample && (byte_level || text != " " + sample)) {
      return invalid_input("\"{}\" comes back as \"{}\" after encoding and decoding", escaped(sample), escaped(text));
    }
  }
  return fmt::format("{}; texts survive encoding and decoding", tokenizer.description());
}

}  // namespace

bool VerifyReport::add(const std::string& name, const Result<std::string>& result) {
  checks_.push_back({name, bool(result), result ? *result : result.error().message});
  if (!result && failure_ == ErrorCode{}) failure_ = result.error().code;
  return bool(result);
}

void verify_file(const Checkpoint& checkpoint, VerifyReport& report) {
  const Status config = check_config(checkpoint.config(), checkpoint.path());
  report.add("config",
             config ? Result<std::string>(fmt::format("{}, {} layers, {} parameters", checkpoint.config().architecture,
                                                      checkpoint.config().n_layers,
                                                      human_count(uint64_t(count_parameters(checkpoint.config())))))
                    : Result<std::string>(config.error()));
  if (!config) return;
  report.add("checksums", check_checksums(checkpoint));
  check_weights(checkpoint, report);
  report.add("tokenizer", check_vocabulary(checkpoint));
}

}  // namespace bitnet::cli
