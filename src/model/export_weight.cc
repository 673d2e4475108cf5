#include "base/parallel_status.h"
#include "format/packed_ternary.h"
#include "kernels/cpu/dispatch.h"
#include "model/checkpoint_state.h"
#include "model/export.h"
#include "quant/blocks.h"
#include "quant/ternary.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace bitnet {
namespace {

constexpr int64_t kValuesAtOnce = int64_t{1} << 20;  // a thread's share of a batch

Result<TernaryLayout> layout_of(DType type) {
  if (type == DType::kU8) return TernaryLayout::kHfPacked;
  if (const auto layout = layout_of_dtype(type)) return *layout;
  return invalid_argument("{} is no ternary type", dtype_info(type).name);
}

// All of a source's codes.
Result<std::vector<uint8_t>> read_codes(const TernarySource& source, ThreadPool& pool) {
  const int64_t n_cols = source.n_cols;
  std::vector<uint8_t> codes(size_t(source.n_rows * n_cols));
  BN_RETURN_IF_ERROR(parallel_status(pool, source.n_rows, [&](int64_t begin, int64_t end) {
    return source.read_codes(begin, end - begin, codes.data() + begin * n_cols);
  }));
  return codes;
}

Status export_codes(const TernarySource& source, const ExportWeight& weight, ThreadPool& pool, const ByteSink& sink) {
  if (weight.packed_bytes > 0) {
    BN_ASSIGN_OR_RETURN(const std::vector<std::byte> packed, pack_source(source, pool));
    return sink(packed);
  }
  BN_ASSIGN_OR_RETURN(const TernaryLayout layout, layout_of(weight.dtype));
  BN_ASSIGN_OR_RETURN(const std::vector<uint8_t> codes, read_codes(source, pool));
  BN_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, encode_ternary(layout, source.n_rows, source.n_cols, codes,
                                                                         source.scales, {}, cpu_ternary_codecs()));
  return sink(bytes);
}

// What the float types hold of a ternary weight: alpha * (code - 1).
void scale_codes(const TernarySource& source, int64_t row, const uint8_t* codes, float* out) {
  const TernaryScales& scales = source.scales;
  const int64_t group_cols = scales.groups.empty() ? source.n_cols : scales.group_cols;
  for (int64_t c = 0; c < source.n_cols; ++c) {
    const float alpha = scales.groups.empty()
                            ? scales.tensor
                            : scales.groups[size_t(row * (source.n_cols / group_cols) + c / group_cols)];
    out[c] = alpha * float(int(codes[c]) - 1);
  }
}

Status values_of_codes(const TernarySource& source, int64_t begin, int64_t n_rows, float* out) {
  std::vector<uint8_t> codes(static_cast<size_t>(source.n_cols));
  for (int64_t row = begin; row < begin + n_rows; ++row, out += source.n_cols) {
    BN_RETURN_IF_ERROR(source.read_codes(row, 1, codes.data()));
    scale_codes(source, row, codes.data(), out);
  }
  return ok();
}

// Rows [begin, begin + n_rows) in the output's type.
using RowEncoder = std::function<Result<std::vector<std::byte>>(int64_t begin, int64_t n_rows)>;

Result<std::vector<std::byte>> encode_floats(const FloatSource& source, const ExportWeight& weight, int64_t begin,
                                             int64_t n_rows) {
  BN_ASSIGN_OR_RETURN(const uint64_t row_bytes, tensor_bytes(source.dtype, {source.n_cols}));
  std::vector<std::byte> stored(size_t(n_rows) * row_bytes);
  BN_RETURN_IF_ERROR(source.read_rows(begin, n_rows, stored.data()));
  if (source.dtype == weight.dtype) return stored;
  std::vector<float> values(size_t(n_rows * source.n_cols));
  BN_RETURN_IF_ERROR(dequantize_rows(source.dtype, stored, n_rows, source.n_cols, values.data()));
  return quantize(weight.dtype, values, n_rows, source.n_cols);
}

// Batches of a share for each thread: no more than a few megabytes of the weight are held as floats.
Status export_rows(const ExportWeight& weight, ThreadPool& pool, const RowEncoder& encode, const ByteSink& sink) {
  const int64_t n_rows = weight.spec->shape[0];
  const int64_t share = std::max<int64_t>(1, kValuesAtOnce / weight.spec->shape[1]), n_threads = pool.n_threads();
  std::vector<std::vector<std::byte>> parts(static_cast<size_t>(n_threads));
  for (int64_t at = 0; at < n_rows; at += share * n_threads) {
    const int64_t n_parts = std::min(n_threads, (n_rows - at + share - 1) / share);
    BN_RETURN_IF_ERROR(parallel_status(pool, n_parts, [&](int64_t begin, int64_t end) -> Status {
      for (int64_t part = begin; part < end; ++part) {
        const int64_t row = at + part * share;
        BN_ASSIGN_OR_RETURN(parts[size_t(part)], encode(row, std::min(share, n_rows - row)));
      }
      return ok();
    }));
    for (int64_t part = 0; part < n_parts; ++part) BN_RETURN_IF_ERROR(sink(parts[size_t(part)]));
  }
  return ok();
}

Status export_floats(const FloatSource& source, const ExportWeight& weight, ThreadPool& pool, const ByteSink& sink) {
  return export_rows(
      weight, pool, [&](int64_t begin, int64_t n_rows) { return encode_floats(source, weight, begin, n_rows); }, sink);
}

Status export_linear(const LinearSource& source, const ExportWeight& weight, ThreadPool& pool, const ByteSink& sink) {
  if (!source.ternary()) return export_floats(std::get<FloatSource>(source.weight), weight, pool, sink);
  const auto& ternary = std::get<TernarySource>(source.weight);
  const bool as_codes = layout_of_dtype(weight.dtype) || weight.dtype == DType::kU8 || weight.packed_bytes > 0;
  if (as_codes) return export_codes(ternary, weight, pool, sink);
  const RowEncoder encode = [&](int64_t begin, int64_t n_rows) -> Result<std::vector<std::byte>> {
    std::vector<float> values(size_t(n_rows * ternary.n_cols));
    BN_RETURN_IF_ERROR(values_of_codes(ternary, begin, n_rows, values.data()));
    return quantize(weight.dtype, values, n_rows, ternary.n_cols);
  };
  return export_rows(weight, pool, encode, sink);
}

// Whether rows are quantised independently, so that a few at a time will do.
bool by_rows(const QuantScheme& scheme) {
  switch (scheme.kind) {
    case SchemeKind::kTernary: return scheme.ternary.granularity != Granularity::kTensor;
    case SchemeKind::kIntegers:
      // Drawn numbers count through the matrix.
      return (scheme.integers.granularity == Granularity::kRow || scheme.integers.granularity == Granularity::kGroup) &&
             !scheme.integers.stochastic_seed;
    default: return true;
  }
}

Status export_by_scheme(const RowReader& read, const ExportWeight& weight, ThreadPool& pool, WeightReport* report,
                        const ByteSink& sink) {
  const int64_t n_all = weight.spec->shape[0], n_cols = weight.spec->shape[1];
  std::mutex metering;
  ErrorMeter meter;
  int64_t n_zeros = 0;
  const auto quantize_rows = [&](int64_t begin, int64_t n_rows) -> Result<std::vector<std::byte>> {
    std::vector<float> values(size_t(n_rows * n_cols)), approximation(values.size());
    BN_RETURN_IF_ERROR(read(begin, n_rows, values.data()));
    BN_ASSIGN_OR_RETURN(std::vector<std::byte> bytes,
                        quantize_by_scheme(weight.scheme, values, n_rows, n_cols, cpu_ternary_codecs()));
    BN_RETURN_IF_ERROR(
        dequantize_stored(weight.dtype, bytes, n_rows, n_cols, approximation.data(), cpu_ternary_codecs()));
    ErrorMeter part;
    part.add(values, approximation);
    const int64_t zeros = std::count(approximation.begin(), approximation.end(), 0.0f);
    const std::lock_guard<std::mutex> lock(metering);
    meter.add(part);
    n_zeros += zeros;
    return bytes;
  };
  if (by_rows(weight.scheme)) {
    BN_RETURN_IF_ERROR(export_rows(weight, pool, quantize_rows, sink));
  } else {
    BN_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, quantize_rows(0, n_all));
    BN_RETURN_IF_ERROR(sink(bytes));
  }
  if (report != nullptr) {
    report->error = meter.metrics();
    report->zeros = double(n_zeros) / double(n_all * n_cols);
  }
  return ok();
}

Status export_values(const Checkpoint& checkpoint, const LinearOf& linear_of, const ExportWeight& weight,
                     ThreadPool& pool, WeightReport* report, const ByteSink& sink) {
  const WeightSpec& spec = *weight.spec;
  const bool kept = weight.scheme.kind == SchemeKind::kKeep;
  switch (spec.kind) {
    case WeightKind::kVector: {
      BN_ASSIGN_OR_RETURN(const std::vector<float> values, checkpoint.read_vector(spec));
      return sink(std::as_bytes(std::span(values)));
    }
    case WeightKind::kTable: {
      BN_ASSIGN_OR_RETURN(FloatSource source, checkpoint.table(spec));
      if (kept) return export_floats(source, weight, pool, sink);
      LinearSource rows;
      rows.weight = std::move(source);
      return export_by_scheme(float_rows(rows), weight, pool, report, sink);
    }
    case WeightKind::kLinear: {
      BN_ASSIGN_OR_RETURN(LinearSource source, linear_of ? linear_of(spec) : checkpoint.linear(spec));
      source = reorder_rows(std::move(source), weight.rows);
      if (kept) return export_linear(source, weight, pool, sink);
      return export_by_scheme(float_rows(source), weight, pool, report, sink);
    }
  }
  return invalid_argument("unknown kind of weight");
}

}  // namespace

RowReader float_rows(const LinearSource& source) {
  if (source.ternary()) {
    return [&ternary = std::get<TernarySource>(source.weight)](int64_t begin, int64_t n_rows, float* out) {
      return values_of_codes(ternary, begin, n_rows, out);
    };
  }
  return [floats = widened(std::get<FloatSource>(source.weight))](int64_t begin, int64_t n_rows, float* out) -> Status {
    BN_ASSIGN_OR_RETURN(const uint64_t row_bytes, tensor_bytes(floats.dtype, {floats.n_cols}));
    std::vector<std::byte> stored(size_t(n_rows) * row_bytes);
    BN_RETURN_IF_ERROR(floats.read_rows(begin, n_rows, stored.data()));
    return dequantize(floats.dtype, stored, n_rows * floats.n_cols, out);
  };
}

Result<std::vector<std::byte>> pack_source(const TernarySource& source, ThreadPool& pool) {
  BN_ASSIGN_OR_RETURN(const std::vector<uint8_t> codes, read_codes(source, pool));
  PackedTernaryOptions options;
  options.codecs = &cpu_ternary_codecs();
  return write_packed_ternary(source.n_rows, source.n_cols, codes, source.scales, options);
}

Status export_weight(const Checkpoint& checkpoint, const ExportPlan& plan, const ExportWeight& weight, ThreadPool& pool,
                     Progress& progress, const ByteSink& sink) {
  WeightReport report;
  report.name = weight.spec->gguf_name;
  report.scheme = weight.scheme.text;
  report.type = std::string(dtype_info(weight.dtype).name);
  report.shape = weight.spec->shape;
  uint64_t n_bytes = 0;
  auto status = export_values(checkpoint, plan.linear_of, weight, pool, &report, [&](std::span<const std::byte> bytes) {
    n_bytes += bytes.size();
    return sink(bytes);
  });
  report.bytes = n_bytes;
  if (!status) {
    status.error().add_context(fmt::format("while writing {}", weight.spec->gguf_name));
    return status;
  }
  if (plan.reports != nullptr) plan.reports->push_back(std::move(report));
  return progress.advance(weight.spec->n_values());
}

}  // namespace bitnet
