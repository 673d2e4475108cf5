#include "train/frozen_base.h"

#include "base/thread_pool.h"
#include "train/initial_weights.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace bitnet {

Result<FrozenBase> FrozenBase::open(const std::string& path, int n_threads) {
  BN_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(path));
  FrozenBase base(std::move(checkpoint));
  base.layout_ = ParameterLayout::make_tables_and_norms(base.checkpoint_.config());
  base.values_.resize(size_t(base.layout_.n_values()));
  BN_RETURN_IF_ERROR(read_initial_weights(path, base.layout_, base.values_.data()));
  ThreadPool pool(n_threads > 0 ? n_threads : available_cpus());
  BN_ASSIGN_OR_RETURN(base.identity_, lora_base_of(base.checkpoint_, pool));
  return base;
}

Result<FrozenLinear> FrozenBase::linear(WeightRole role, int64_t layer) const {
  const std::vector<WeightSpec>& weights = checkpoint_.weights();
  const auto spec = std::find_if(weights.begin(), weights.end(),
                                 [&](const WeightSpec& w) { return w.role == role && w.layer == layer; });
  BN_ASSIGN_OR_RETURN(const LinearSource source, checkpoint_.linear(*spec));
  const auto* const ternary = std::get_if<TernarySource>(&source.weight);
  if (ternary == nullptr || !ternary->scales.groups.empty() || !source.quantize_input) {
    return unsupported("{}: {} {}; adapters are trained on ternary linears with one scale and int8 inputs", path(),
                       spec->hf_name,
                       ternary == nullptr      ? "is not ternary"
                       : source.quantize_input ? "has scales for groups of columns"
                                               : "sees unquantised inputs");
  }
  FrozenLinear out;
  out.codes.resize(size_t(spec->n_values()));
  out.alpha = ternary->scales.tensor;
  BN_RETURN_IF_ERROR(ternary->read_codes(0, ternary->n_rows, out.codes.data()));
  return out;
}

}  // namespace bitnet
