// Where the time of a device's whole steps goes, for `bitnet bench --phases`.
#include "bench.h"

#include "model/forward.h"
#include "model/model.h"
#include "runtime/batch.h"
#include "runtime/kv_cache.h"

#include <algorithm>

namespace bitnet::cli {
namespace {

// The least time that a phase can take, and what bounds it.
struct Bound {
  double seconds = 0;
  const char* by = "";
};
Bound bound_of(const StepPhase& phase, const MachineLimits& limits) {
  const double memory = limits.read_gb_per_s > 0 ? double(phase.bytes) / 1e9 / limits.read_gb_per_s : 0;
  const double int8 = limits.int8_gops_per_s > 0 ? double(phase.ops) / 1e9 / limits.int8_gops_per_s : 0;
  if (memory == 0 && int8 == 0) return {};
  return memory > int8 ? Bound{memory, "memory"} : Bound{int8, "int8"};
}

}  // namespace

Result<std::vector<StepPhase>> measure_phases(const Model& model, KvType kv_type, int64_t n_parts, int64_t n_tokens,
                                              int64_t position) {
  const ModelImpl& impl = *model.impl();
  if (!impl.fused) return unsupported("{} runs this model by its operations", impl.backend->name());
  const DType dtype = cache_dtype(kv_type);
  const int64_t n_pages = Batch::pages_of(position + n_tokens), n_ctx = n_pages * kPagePositions;
  BN_ASSIGN_OR_RETURN(const KvCache kv, KvCache::create(*impl.backend, impl.config, dtype, n_parts * n_ctx));
  BN_ASSIGN_OR_RETURN(const RopeTables rope, make_rope_tables(*impl.backend, impl.config, n_ctx));
  StreamOptions options;
  options.max_tokens = n_parts * n_tokens;
  options.n_ctx = n_ctx;
  options.n_heads = impl.config.n_heads;
  options.max_parts = n_parts;
  options.fused = impl.fused.get();
  BN_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, impl.backend->new_stream(options));
  std::vector<int32_t> ids(static_cast<size_t>(n_parts * n_tokens)), pages(static_cast<size_t>(n_parts * n_pages));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(int64_t(i * 7919) % model.info().vocab_size);
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = int32_t(i);
  std::vector<SequencePart> parts;
  for (int64_t i = 0; i < n_parts; ++i) {
    parts.push_back({kv.layers(), std::span(ids).subspan(size_t(i * n_tokens), size_t(n_tokens)), position});
    if (n_parts > 1) parts.back().pages = std::span(pages).subspan(size_t(i * n_pages), size_t(n_pages));
  }
  return impl.fused->measure(*stream, parts, rope.view);
}

OrderedJson to_json(std::span<const StepPhase> phases, const MachineLimits& limits) {
  OrderedJson all = OrderedJson::array();
  for (const StepPhase& phase : phases) {
    const Bound bound = bound_of(phase, limits);
    all.push_back({{"name", phase.name},
                   {"us_per_step", phase.seconds * 1e6},
                   {"bytes", phase.bytes},
                   {"ops", phase.ops},
                   {"bound", bound.by},
                   {"bound_us", bound.seconds * 1e6},
                   {"share_of_bound", phase.seconds > 0 ? bound.seconds / phase.seconds : 0}});
  }
  return all;
}

void print_step_phases(const std::string& test, std::span<const StepPhase> phases, const MachineLimits& limits) {
  if (phases.empty()) return;
  std::vector<std::vector<std::string>> rows = {
      {"phase of " + test + ", alone", "us/step", "MB", "GOP", "bound", "us", "share of it"}};
  double total = 0;
  for (const StepPhase& phase : phases) {
    const Bound bound = bound_of(phase, limits);
    total += phase.seconds;
    rows.push_back({phase.name, fmt::format("{:.1f}", phase.seconds * 1e6),
                    phase.bytes > 0 ? fmt::format("{:.1f}", double(phase.bytes) / 1e6) : "",
                    phase.ops > 0 ? fmt::format("{:.1f}", double(phase.ops) / 1e9) : "", bound.by,
                    bound.seconds > 0 ? fmt::format("{:.1f}", bound.seconds * 1e6) : "",
                    bound.seconds > 0 ? fmt::format("{:.0f}%", 100 * bound.seconds / phase.seconds) : ""});
  }
  rows.push_back({"together", fmt::format("{:.1f}", total * 1e6), "", "", "", "", ""});
  print(table(rows) + "\n");
}

}  // namespace bitnet::cli
