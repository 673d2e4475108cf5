#include "train/trainer.h"

#include <cmath>

// How a training run is kept and taken up again.
namespace bitnet {
namespace {

// What a run cannot be resumed without, by key.
Json lasting_options(TrainOptions options) {
  Json json = Json::object();
  for (const OptionKey& key : option_keys(options)) {
    if (key.changes_result) std::visit([&](auto* value) { json[key.name] = *value; }, key.value);
  }
  return json;
}

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

Status Trainer::save() {
  BN_RETURN_IF_ERROR(engine_->fetch());
  if (!leads()) return ok();
  PoolVector<float>&parameters = engine_->parameters(), &average = engine_->average();
  for (const float value : parameters) {
    if (!std::isfinite(value)) {
      return invalid_input("a weight is not finite after step {}: no checkpoint is written", step_);
    }
  }
  std::vector<TensorView> tensors;
  for (const ParameterSlice& slice : layout_.slices()) {
    const std::span<const float> values(parameters.data() + slice.offset, size_t(slice.n_values));
    tensors.push_back({slice.name, DType::kF32, slice.is_step ? Shape{1} : slice.spec.shape, std::as_bytes(values)});
  }
  if (!average.empty()) {
    tensors.push_back({"average", DType::kF32, {int64_t(average.size())}, std::as_bytes(std::span(average))});
  }
  for (const Optimizer::State& state : engine_->optimizer_states()) {
    tensors.push_back({"optimizer." + state.name, state.dtype, state.shape, state.bytes});
  }
  Json state = {{"options", lasting_options(options_)},
                {"n_updates", n_updates_},
                {"position", position_},
                {"usual_norm", usual_norm_},
                {"n_bad", n_bad_}};
  if (trains_adapter()) state["base_checksum"] = base_->identity().checksum;
  return store_->save(step_, tensors, state);
}

// Weights and moments into the host's image, and the rest to `found`, which stays null where there is no checkpoint.
Status Trainer::read_checkpoint(const TrainCallbacks& callbacks, Json& found) {
  BN_ASSIGN_OR_RETURN(const NewestCheckpoint newest, store_->load_newest());
  for (const std::string& rejected : newest.rejected) {
    if (callbacks.on_notice) callbacks.on_notice(rejected);
  }
  if (!newest.file) return ok();
  const CheckpointFile& file = *newest.file;
  // A key that there was not yet when the run began had the value that it has by itself.
  Json then = lasting_options(TrainOptions());
  then.update(file.state().value("options", Json::object()));
  const Json now = lasting_options(options_);
  for (const auto& [key, value] : now.items()) {
    if (then[key] == value) continue;
    return invalid_argument("{}: the run began with {} = {}, not {}: begin another one, in a folder of its own",
                            file.path(), key, then[key].dump(), value.dump());
  }
  if (trains_adapter()) {
    BN_ASSIGN_OR_RETURN(const std::string checksum, json_string(file.state(), "base_checksum", file.path()));
    if (checksum != base_->identity().checksum) {
      return invalid_input("{}: the run began on a base with the checksum {}, {} has {}: it is another model now",
                           file.path(), checksum, base_->path(), base_->identity().checksum);
    }
  }
  PoolVector<float>&parameters = engine_->parameters(), &average = engine_->average();
  for (const ParameterSlice& slice : layout_.slices()) {
    const std::span<float> values(parameters.data() + slice.offset, size_t(slice.n_values));
    BN_RETURN_IF_ERROR(file.read(slice.name, DType::kF32, slice.is_step ? Shape{1} : slice.spec.shape,
                                 std::as_writable_bytes(values)));
  }
  if (!average.empty()) {
    BN_RETURN_IF_ERROR(
        file.read("average", DType::kF32, {int64_t(average.size())}, std::as_writable_bytes(std::span(average))));
  }
  for (const Optimizer::State& state : engine_->optimizer_states()) {
    BN_RETURN_IF_ERROR(file.read("optimizer." + state.name, state.dtype, state.shape, state.bytes));
  }
  found = file.state();
  found["step"] = file.step();
  return ok();
}

Status Trainer::resume(const TrainCallbacks& callbacks) {
  Json state;
  if (leads()) BN_RETURN_IF_ERROR(read_checkpoint(callbacks, state));
  if (ranks_.peers) {
    const Json options = lasting_options(options_);
    const std::string said = leads() ? text_of(Json{{"options", options}, {"state", state}}) : std::string();
    BN_ASSIGN_OR_RETURN(const std::string heard, ranks_.peers->meet(said));
    BN_ASSIGN_OR_RETURN(const Json first, parse_json(heard, "what rank 0 says"));
    const Json its_options = first.value("options", Json::object());
    for (const auto& [key, value] : options.items()) {
      if (const Json its = its_options.value(key, Json()); text_of(its) != text_of(value)) {
        return invalid_argument("rank 0 trains with {} = {}, rank {} with {}", key, text_of(its), ranks_.first,
                                text_of(value));
      }
    }
    state = first.value("state", Json());
  }
  if (state.is_null()) return ok();
  BN_ASSIGN_OR_RETURN(n_updates_, json_int(state, "n_updates", options_.run, 0, INT64_MAX));
  BN_ASSIGN_OR_RETURN(const int64_t position, json_int(state, "position", options_.run, 0, INT64_MAX));
  BN_ASSIGN_OR_RETURN(usual_norm_, json_number(state, "usual_norm", options_.run));
  BN_ASSIGN_OR_RETURN(n_bad_, json_int(state, "n_bad", options_.run, 0, kMaxBadSteps));
  BN_ASSIGN_OR_RETURN(step_, json_int(state, "step", options_.run, 0, INT64_MAX));
  BN_RETURN_IF_ERROR(engine_->send());
  position_ = uint64_t(position);
  prepared_ = false;
  return ok();
}

}  // namespace bitnet
