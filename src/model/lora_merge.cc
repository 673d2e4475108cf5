#include "model/lora_merge.h"

#include "kernels/cpu/dispatch.h"
#include "model/export.h"
#include "model/lora_adapter.h"
#include "quant/blocks.h"
#include "quant/ternary_quantizers.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

namespace bitnet {
namespace {

double norm(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += double(value) * double(value);
  return std::sqrt(sum);
}
double distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
  return std::sqrt(sum);
}

// The linears of the merged model, one at a time.
class Merger {
 public:
  Merger(const Checkpoint& base, const LoraAdapter& adapter, const MergeOptions& options, ThreadPool& pool)
      : base_(base), adapter_(adapter), options_(options), pool_(pool) {}

  Result<LinearSource> linear(const WeightSpec& spec) {
    BN_ASSIGN_OR_RETURN(LinearSource source, base_.linear(spec));
    const LoraPair* const pair = adapter_.find(spec.role, spec.layer);
    if (options_.requantize && pair == nullptr) return source;
    std::vector<float> before(size_t(spec.n_values()));
    BN_RETURN_IF_ERROR(float_rows(source)(0, spec.shape[0], before.data()));
    std::vector<float> merged = before;
    if (pair != nullptr) add(*pair, merged);
    MergedWeight report{spec.hf_name};
    std::vector<float> written(merged.size());
    if (options_.requantize) {
      BN_ASSIGN_OR_RETURN(source.weight, ternary(spec, source, merged, written, report));
    } else {
      BN_ASSIGN_OR_RETURN(source.weight, floats(spec, merged, written));
      source.quantize_input = false;
    }
    if (pair == nullptr) return source;
    const double added = distance(merged, before), error = distance(written, merged);
    report.delta = added / std::max(norm(before), 1e-30);
    report.error = error / std::max(norm(merged), 1e-30);
    report.kept = added > 0 ? 1 - error / added : 1;
    const auto known = std::find_if(reports_.begin(), reports_.end(), [&](auto& r) { return r.name == report.name; });
    if (known == reports_.end()) reports_.push_back(report);  // each linear is asked for twice
    return source;
  }

  std::vector<MergedWeight> take_reports() { return std::move(reports_); }

 private:
  // values += (scale b) a, added up in order of the rank.
  void add(const LoraPair& pair, std::vector<float>& values) const {
    const int64_t rank = adapter_.rank, n_cols = pair.linear.shape[1];
    const float factor = float(adapter_.scale * options_.scale);
    pool_.parallel_for(pair.linear.shape[0], [&](int64_t begin, int64_t end, int) {
      std::vector<float> row(static_cast<size_t>(n_cols));
      for (int64_t o = begin; o < end; ++o) {
        std::fill(row.begin(), row.end(), 0.0f);
        for (int64_t r = 0; r < rank; ++r) {
          const float b = pair.b[size_t(o * rank + r)] * factor;
          for (int64_t i = 0; i < n_cols; ++i) row[size_t(i)] += b * pair.a[size_t(r * n_cols + i)];
        }
        for (int64_t i = 0; i < n_cols; ++i) values[size_t(o * n_cols + i)] += row[size_t(i)];
      }
    });
  }

  Result<FloatSource> floats(const WeightSpec& spec, const std::vector<float>& merged,
                             std::vector<float>& written) const {
    const int64_t n_rows = spec.shape[0], n_cols = spec.shape[1];
    BN_ASSIGN_OR_RETURN(auto bytes, quantize(options_.type, merged, n_rows, n_cols));
    BN_RETURN_IF_ERROR(dequantize(options_.type, bytes, spec.n_values(), written.data()));
    FloatSource source;
    source.dtype = options_.type;
    source.n_rows = n_rows;
    source.n_cols = n_cols;
    const size_t row_bytes = bytes.size() / size_t(n_rows);
    auto shared = std::make_shared<std::vector<std::byte>>(std::move(bytes));
    source.read_rows = [shared, row_bytes](int64_t row_begin, int64_t n, std::byte* out) -> Status {
      std::memcpy(out, shared->data() + size_t(row_begin) * row_bytes, size_t(n) * row_bytes);
      return ok();
    };
    return source;
  }

  Result<TernarySource> ternary(const WeightSpec& spec, const LinearSource& before, const std::vector<float>& merged,
                                std::vector<float>& written, MergedWeight& report) const {
    const int64_t n_rows = spec.shape[0], n_cols = spec.shape[1];
    TernaryOptions least_squares;
    least_squares.method = TernaryMethod::kLeastSquares;
    BN_ASSIGN_OR_RETURN(TernaryCodes found, ternarize(merged, n_rows, n_cols, least_squares, cpu_ternary_codecs()));
    const float alpha = found.scales.tensor;
    for (size_t i = 0; i < written.size(); ++i) written[i] = alpha * float(int(found.codes[i]) - 1);
    if (const auto* old = std::get_if<TernarySource>(&before.weight)) {
      std::vector<uint8_t> codes(found.codes.size());
      BN_RETURN_IF_ERROR(old->read_codes(0, n_rows, codes.data()));
      int64_t n_flipped = 0;
      for (size_t i = 0; i < codes.size(); ++i) n_flipped += codes[i] != found.codes[i];
      report.flipped = double(n_flipped) / double(codes.size());
    }
    TernarySource source;
    source.n_rows = n_rows;
    source.n_cols = n_cols;
    source.scales.tensor = alpha;
    auto codes = std::make_shared<std::vector<uint8_t>>(std::move(found.codes));
    source.read_codes = [codes, n_cols](int64_t row_begin, int64_t n, uint8_t* out) -> Status {
      std::memcpy(out, codes->data() + row_begin * n_cols, size_t(n * n_cols));
      return ok();
    };
    return source;
  }

  const Checkpoint& base_;
  const LoraAdapter& adapter_;
  const MergeOptions& options_;
  ThreadPool& pool_;
  std::vector<MergedWeight> reports_;
};

Status check_options(const MergeOptions& options) {
  const DType type = options.type;
  if (type != DType::kF16 && type != DType::kBF16 && type != DType::kF32) {
    return invalid_argument("a merged model is written as f16, bf16 or f32, not as {}", dtype_info(type).name);
  }
  if (!std::isfinite(options.scale)) return invalid_argument("a scale of {} is no finite number", options.scale);
  if (options.to_hf || options.requantize) return ok();
  Error error = unsupported("a GGUF file of this architecture holds ternary linears, merged ones are floats");
  error.suggestion = "a folder (--to hf), or ternary again (--requantize)";
  return error;
}

}  // namespace

Result<MergeReport> merge_lora(const std::string& base, const std::string& adapter, const std::string& output,
                               const MergeOptions& options) {
  BN_RETURN_IF_ERROR(check_options(options));
  BN_RETURN_IF_ERROR(check_output(base, output, options.to_hf));
  BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(base));
  ThreadPool pool(available_cpus());
  BN_ASSIGN_OR_RETURN(const LoraAdapter lora, read_lora_adapter(adapter, checkpoint, pool));
  Merger merger(checkpoint, lora, options, pool);
  ConvertOptions converting;
  converting.to_hf = options.to_hf;
  Progress progress(options.on_progress, count_export_steps(checkpoint.weights()));
  BN_ASSIGN_OR_RETURN(ExportPlan plan, plan_export(checkpoint, converting, progress, {},
                                                   [&](const WeightSpec& spec) { return merger.linear(spec); }));
  if (options.to_hf) {
    BN_RETURN_IF_ERROR(export_folder(checkpoint, plan, output, progress));
  } else {
    BN_RETURN_IF_ERROR(export_gguf(checkpoint, plan, converting, output, progress));
  }
  MergeReport report;
  std::error_code ignored;
  report.file.source_bytes = checkpoint.file_bytes();
  report.file.output_bytes =
      std::filesystem::file_size(options.to_hf ? output + "/model.safetensors" : output, ignored);
  report.file.n_tensors = int64_t(plan.weights.size());
  report.file.notices = checkpoint.notices();
  report.file.notices.insert(report.file.notices.end(), plan.notices.begin(), plan.notices.end());
  report.weights = merger.take_reports();
  return report;
}

}  // namespace bitnet
