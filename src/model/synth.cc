#include "base/rng.h"
#include "base/thread_pool.h"
#include "kernels/cpu/dispatch.h"
#include "model/convert.h"
#include "model/export.h"
#include "model/presets.h"
#include "quant/blocks.h"
#include "quant/ternary.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

namespace bitnet {
namespace {

constexpr int64_t kRowsAtOnce = 128;  // whole blocks of every layout whatever the number of columns

// 32 codes from one counter: two bits each, and the fourth pattern becomes 0 weight half of the time and -1 or +1
// otherwise. That makes 37.5 % zeros, about what trained models have.
void random_codes(const CounterRng& rng, uint64_t counter, uint8_t* codes, int64_t n) {
  uint64_t pairs = rng.bits(2 * counter);
  constexpr uint64_t kLow = 0x5555555555555555u;
  const uint64_t threes = pairs & pairs >> 1 & kLow;
  const uint64_t choice = rng.bits(2 * counter + 1);
  const uint64_t to_one = threes & choice, to_two = threes & ~choice & choice >> 1;  // the rest becomes code 0
  pairs = (pairs & ~(threes | threes << 1)) | to_one | to_two << 1;
  for (int64_t i = 0; i < n; ++i) codes[i] = uint8_t(pairs >> (2 * i) & 3);
}

// Sum of eight uniform bytes: near enough to a normal number, and ten times as fast.
float near_normal(const CounterRng& rng, uint64_t counter) {
  const uint64_t bits = rng.bits(counter);
  const uint64_t pairs = (bits & 0x00ff00ff00ff00ffu) + (bits >> 8 & 0x00ff00ff00ff00ffu);
  const uint64_t sum = (pairs * 0x0001000100010001u) >> 48;
  constexpr float kMean = 1020.0f, kInverseDeviation = 1.0f / 209.0166f;  // 8 * 127.5, sqrt(8 * (256^2 - 1) / 12)
  return (float(sum) - kMean) * kInverseDeviation;
}

class Synthesizer {
 public:
  Synthesizer(const ModelConfig& config, const SynthOptions& options, GgufWriter writer)
      : config_(config),
        options_(options),
        writer_(std::move(writer)),
        weights_(list_weights(config)),
        pool_(available_cpus()),
        progress_(options.on_progress, count_parameters(config)) {}

  Status write() {
    BN_RETURN_IF_ERROR(config_to_gguf(config_, writer_));
    BN_RETURN_IF_ERROR(writer_.add_metadata("general.file_type", gguf_file_type(options_.linear_type)));
    BN_RETURN_IF_ERROR(writer_.add_metadata("general.quantization_version", uint32_t{2}));
    for (const WeightSpec& spec : weights_) {
      if (auto status = writer_.add_tensor(spec.gguf_name, type_of(spec), spec.shape); !status)
        return refuse(spec, status);
    }
    BN_RETURN_IF_ERROR(writer_.add_checksums());
    BN_RETURN_IF_ERROR(writer_.begin_data());
    for (size_t i = 0; i < weights_.size(); ++i) {
      BN_RETURN_IF_ERROR(write_weight(weights_[i], CounterRng(options_.seed, i)));
      BN_RETURN_IF_ERROR(progress_.advance(weights_[i].n_values()));
    }
    return writer_.finish();
  }

 private:
  using Rows = Result<std::vector<std::byte>>;

  DType type_of(const WeightSpec& spec) const {
    switch (spec.kind) {
      case WeightKind::kVector: return DType::kF32;
      case WeightKind::kTable: return options_.embed_type;
      case WeightKind::kLinear: return options_.linear_type;
    }
    return DType::kF32;
  }

  Status refuse(const WeightSpec& spec, Status& status) const {
    Error error = std::move(status.error());
    error.message =
        fmt::format("preset {}: {} {}: {}", options_.preset, spec.gguf_name, shape_string(spec.shape), error.message);
    error.suggestion = spec.kind == WeightKind::kLinear ? "use --type i2_s" : "use --embed-type f16";
    return error;
  }

  Status write_weight(const WeightSpec& spec, const CounterRng& rng) {
    if (spec.kind == WeightKind::kVector) {
      const std::vector<float> ones(size_t(spec.shape[0]), 1.0f);
      return writer_.write_data(std::as_bytes(std::span(ones)));
    }
    if (spec.kind == WeightKind::kTable) {
      return write_rows(spec, [&](int64_t begin, int64_t n) { return table_rows(spec, rng, begin, n); });
    }
    const float alpha = alpha_of(spec, rng);
    BN_RETURN_IF_ERROR(
        write_rows(spec, [&](int64_t begin, int64_t n) { return code_rows(spec, rng, alpha, begin, n); }));
    if (options_.linear_type != DType::kI2_S) return ok();
    float tail[8] = {alpha};
    return writer_.write_data(std::as_bytes(std::span(tail)));
  }

  // 1 / sqrt(fan-in) for weights whose square is 0.625 on average, give or take a tenth: outputs of about unit
  // variance, so that activations stay finite and half of the gates are open.
  float alpha_of(const WeightSpec& spec, const CounterRng& rng) const {
    const double jitter = 0.9 + 0.2 * rng.uniform(UINT64_MAX);
    return float(jitter / std::sqrt(0.625 * double(spec.shape[1])));
  }

  Rows code_rows(const WeightSpec& spec, const CounterRng& rng, float alpha, int64_t begin, int64_t n_rows) const {
    const int64_t n_cols = spec.shape[1], count = n_rows * n_cols, first = begin * n_cols;  // 32 divides first
    std::vector<uint8_t> codes(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; i += 32) {
      random_codes(rng, uint64_t(first + i) / 32, codes.data() + i, std::min<int64_t>(32, count - i));
    }
    TernaryScales scales;
    scales.tensor = alpha;
    const TernaryLayout layout = options_.linear_type == DType::kI2_S    ? TernaryLayout::kI2S
                                 : options_.linear_type == DType::kTQ1_0 ? TernaryLayout::kTQ1_0
                                                                         : TernaryLayout::kTQ2_0;
    BN_ASSIGN_OR_RETURN(std::vector<std::byte> bytes,
                        encode_ternary(layout, n_rows, n_cols, codes, scales, {}, cpu_ternary_codecs()));
    if (layout == TernaryLayout::kI2S) bytes.resize(size_t(count) / 4);  // the tail stands once, after all rows
    return bytes;
  }

  // Rows of length 1 after the head's norm, so that logits have about unit variance; 0.02 for a width of 2560.
  Rows table_rows(const WeightSpec& spec, const CounterRng& rng, int64_t begin, int64_t n_rows) const {
    const int64_t n_cols = spec.shape[1];
    const float deviation = 1.0f / std::sqrt(float(n_cols));
    std::vector<float> values(size_t(n_rows * n_cols));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = near_normal(rng, uint64_t(begin * n_cols) + i) * deviation;
    }
    return quantize(options_.embed_type, values, n_rows, n_cols);
  }

  // Makes kRowsAtOnce rows at a time on all threads. What they hold depends on their place alone.
  template <class Make>
  Status write_rows(const WeightSpec& spec, const Make& make) {
    const int64_t n_rows = spec.shape[0], n_parts = (n_rows + kRowsAtOnce - 1) / kRowsAtOnce;
    const int64_t batch = 4 * pool_.n_threads();
    for (int64_t first = 0; first < n_parts; first += batch) {
      std::vector<std::optional<Rows>> parts(size_t(std::min(batch, n_parts - first)));
      pool_.parallel_for(int64_t(parts.size()), [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t row = (first + i) * kRowsAtOnce;
          parts[size_t(i)] = make(row, std::min(kRowsAtOnce, n_rows - row));
        }
      });
      for (const auto& part : parts) {
        if (!*part) return (*part).error();
        BN_RETURN_IF_ERROR(writer_.write_data(**part));
      }
    }
    return ok();
  }

  const ModelConfig& config_;
  const SynthOptions& options_;
  GgufWriter writer_;
  std::vector<WeightSpec> weights_;
  ThreadPool pool_;
  Progress progress_;
};

}  // namespace

Status synthesize(const std::string& output, const SynthOptions& options) {
  if (!is_ternary(options.linear_type)) {
    return invalid_argument("linear layers of a synthetic model are i2_s, tq1_0 or tq2_0, not {}",
                            dtype_info(options.linear_type).name);
  }
  BN_ASSIGN_OR_RETURN(const ModelConfig config, preset_config(options.preset));
  BN_ASSIGN_OR_RETURN(GgufWriter writer, GgufWriter::create(output));
  return Synthesizer(config, options, std::move(writer)).write();
}

std::vector<std::string> synth_presets() { return preset_names(); }

}  // namespace bitnet
