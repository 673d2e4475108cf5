#include "model/model.h"

#include "model/checkpoint.h"
#include "model/find_model.h"
#include "model/lora_adapter.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <utility>

namespace bitnet {
namespace {

// Puts a checkpoint's weights into a model. Each thread decodes and lays out one weight at a time, so that little more
// than the weights themselves is ever in memory; large tables then take all threads together.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const LoadOptions& options, ModelImpl& model)
      : checkpoint_(checkpoint),
        options_(options),
        model_(model),
        pool_(options.n_threads > 0 ? options.n_threads : available_cpus()) {}

  Status load() {
    model_.layers.resize(size_t(model_.config.n_layers));
    for (const WeightSpec& spec : checkpoint_.weights()) model_.info.n_parameters += spec.n_values();
    // Tables first: what is done of them here, checking their bytes, takes longest.
    std::vector<const WeightSpec*> order;
    for (const WeightSpec& spec : checkpoint_.weights()) order.push_back(&spec);
    std::stable_partition(order.begin(), order.end(), [](auto* spec) { return spec->kind == WeightKind::kTable; });

    BN_RETURN_IF_ERROR(reserve());
    std::atomic<size_t> next = 0;
    std::atomic<bool> failed = false;
    std::vector<std::optional<Error>> errors(order.size());
    pool_.run([&](int) {
      ThreadPool alone(1);
      for (size_t i = next++; i < order.size() && !failed; i = next++) {
        Status status = load_weight(*order[i], alone);
        if (!status) errors[i] = std::move(status.error());
        if (!status) failed = true;
      }
    });
    for (std::optional<Error>& error : errors) {
      if (error) return *std::move(error);
    }
    for (Table& table : tables_) BN_RETURN_IF_ERROR(prepare_table(table));
    if (model_.config.tied_head) model_.info.bytes_per_token += model_.token_embedding->bytes_per_product();
    return ok();
  }

 private:
  struct Table {
    const WeightSpec* spec;
    FloatSource source;
  };

  Status reserve() {
    std::vector<WeightPlan> plan;
    for (const WeightSpec& spec : checkpoint_.weights()) {
      const bool vector = spec.shape.size() == 1, table = spec.kind == WeightKind::kTable;
      WeightPlan weight{vector ? 1 : spec.shape[0], spec.shape[vector ? 0 : 1], row_groups(spec.role), table};
      if (table) weight.use = table_use(spec);
      if (table) weight.dtype = checkpoint_.stored(spec).dtype;
      plan.push_back(weight);
    }
    return model_.backend->reserve(plan);
  }

  void count(const WeightSpec& spec, uint64_t memory_bytes) {
    model_.info.memory_bytes += memory_bytes;
    n_done_ += spec.n_values();
    if (options_.on_progress) options_.on_progress(double(n_done_) / double(model_.info.n_parameters));
  }

  // By one thread; others load other weights meanwhile.
  Status load_weight(const WeightSpec& spec, ThreadPool& alone) {
    switch (spec.kind) {
      case WeightKind::kVector: return load_vector(spec);
      case WeightKind::kLinear: return load_linear(spec, alone);
      case WeightKind::kTable: return open_table(spec);
    }
    return ok();
  }

  Status load_vector(const WeightSpec& spec) {
    BN_ASSIGN_OR_RETURN(const std::vector<float> values, checkpoint_.read_vector(spec));
    Buffer& memory = vector_of(spec)->memory;
    BN_ASSIGN_OR_RETURN(memory, model_.backend->allocate(values.size() * sizeof(float)));
    BN_RETURN_IF_ERROR(model_.backend->upload(std::as_bytes(std::span(values)), memory.data()));
    const std::lock_guard<std::mutex> lock(counting_);
    count(spec, uint64_t(spec.n_values()) * sizeof(float));
    return ok();
  }

  Status load_linear(const WeightSpec& spec, ThreadPool& alone) {
    BN_ASSIGN_OR_RETURN(LinearSource source, open_linear(spec));
    LinearLayer& layer = linear_of(spec);
    layer.quantize_input = source.quantize_input;
    const Backend& backend = *model_.backend;
    if (const auto* ternary = std::get_if<TernarySource>(&source.weight)) {
      BN_ASSIGN_OR_RETURN(layer.weight, backend.prepare(*ternary, alone));
    } else {
      BN_ASSIGN_OR_RETURN(layer.weight, backend.prepare(*std::get_if<FloatSource>(&source.weight), alone));
    }
    const std::lock_guard<std::mutex> lock(counting_);
    model_.info.bytes_per_token += layer.weight->bytes_per_product();
    model_.info.ops_per_token += 2 * uint64_t(spec.n_values());
    count(spec, layer.weight->size_bytes());
    return ok();
  }

  // From the cache, or from the checkpoint.
  Result<LinearSource> open_linear(const WeightSpec& spec) {
    const bool sparse = model_.sparse_ffn && model_.act_quant;
    const TernaryUse use = sparse ? ternary_use(spec.role) : TernaryUse::kWhole;
    BN_ASSIGN_OR_RETURN(auto kept, model_.cache->find_linear(spec, use));
    if (kept) return *std::move(kept);
    BN_ASSIGN_OR_RETURN(LinearSource source, checkpoint_.linear(spec));
    if (auto* ternary = std::get_if<TernarySource>(&source.weight)) {
      ternary->use = use;
      ternary->row_groups = row_groups(spec.role);
    }
    BN_RETURN_IF_ERROR(model_.cache->attach(spec, source));
    return source;
  }

  Status open_table(const WeightSpec& spec) {
    const TableUse use = table_use(spec);
    const bool kept = use == TableUse::kHead && model_.cache->has_table(spec);
    BN_ASSIGN_OR_RETURN(FloatSource source, checkpoint_.table(spec, kept));
    source.use = use;
    if (use == TableUse::kHead) model_.cache->attach(spec, source);
    const std::lock_guard<std::mutex> lock(counting_);
    tables_.push_back({&spec, std::move(source)});
    return ok();
  }
  Status prepare_table(const Table& table) {
    const WeightSpec& spec = *table.spec;
    BN_ASSIGN_OR_RETURN(auto matrix, model_.backend->prepare(table.source, pool_));
    count(spec, matrix->size_bytes());
    if (spec.role == WeightRole::kOutput) model_.info.bytes_per_token += matrix->bytes_per_product();
    (spec.role == WeightRole::kOutput ? model_.output : model_.token_embedding) = std::move(matrix);
    return ok();
  }

  static TernaryUse ternary_use(WeightRole role) {
    if (role == WeightRole::kUp) return TernaryUse::kSomeRows;
    return role == WeightRole::kDown ? TernaryUse::kSomeColumns : TernaryUse::kWhole;
  }

  // Queries stay with the keys that they meet.
  int64_t row_groups(WeightRole role) const {
    const bool heads = role == WeightRole::kQ || role == WeightRole::kK || role == WeightRole::kV;
    return heads ? model_.config.n_kv_heads : 0;
  }

  TableUse table_use(const WeightSpec& spec) const {
    constexpr uint64_t kLarge_bytes = uint64_t{64} << 20;
    const bool large = checkpoint_.stored(spec).size_bytes >= kLarge_bytes;
    if (options_.head == HeadMode::kFull || (options_.head == HeadMode::kAuto && !large)) return TableUse::kProducts;
    const bool is_head = spec.role == WeightRole::kOutput || model_.config.tied_head;
    return is_head ? TableUse::kHead : TableUse::kRows;
  }

  Vector* vector_of(const WeightSpec& spec) {
    if (spec.role == WeightRole::kOutputNorm) return &model_.output_norm;
    LayerWeights& layer = model_.layers[size_t(spec.layer)];
    switch (spec.role) {
      case WeightRole::kAttnNorm: return &layer.attn_norm;
      case WeightRole::kAttnSubNorm: return &layer.attn_sub_norm;
      case WeightRole::kFfnNorm: return &layer.ffn_norm;
      case WeightRole::kFfnSubNorm: return &layer.ffn_sub_norm;
      default: return &linear_of(spec).input_norm;
    }
  }

  LinearLayer& linear_of(const WeightSpec& spec) {
    return bitnet::linear_of(model_.layers[size_t(spec.layer)], spec.role);
  }

  const Checkpoint& checkpoint_;
  const LoadOptions& options_;
  ModelImpl& model_;
  ThreadPool pool_;
  std::mutex counting_;
  int64_t n_done_ = 0;  // values
  std::vector<Table> tables_;
};

bool fits_graph(const LinearLayer& linear) {
  return linear.weight->ternary() && linear.quantize_input && linear.input_norm.data() == nullptr && !linear.lora.a;
}

// Gives the back end the graph as a whole; one with layers of another kind runs by its operations.
Status fuse(ModelImpl& model) {
  const ModelConfig& c = model.config;
  if (!model.act_quant) return ok();
  ModelGraph graph{c.d_model,
                   c.d_ff,
                   c.n_heads,
                   c.n_kv_heads,
                   c.head_dim,
                   c.vocab_size,
                   c.rms_eps,
                   c.gate_activation,
                   model.token_embedding.get(),
                   model.output ? model.output.get() : model.token_embedding.get(),
                   model.output_norm.data(),
                   {}};
  for (const LayerWeights& layer : model.layers) {
    for (const LinearLayer* linear : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      if (!fits_graph(*linear)) return ok();
    }
    graph.layers.push_back({layer.attn_norm.data(), layer.attn_sub_norm.data(), layer.ffn_norm.data(),
                            layer.ffn_sub_norm.data(), layer.q.weight.get(), layer.k.weight.get(), layer.v.weight.get(),
                            layer.o.weight.get(), layer.gate.weight.get(), layer.up.weight.get(),
                            layer.down.weight.get()});
  }
  BN_ASSIGN_OR_RETURN(model.fused, model.backend->fuse(graph));
  return ok();
}

void describe(const Checkpoint& checkpoint, ModelImpl& model) {
  const ModelConfig& c = model.config;
  ModelInfo& info = model.info;
  info.path = checkpoint.path();
  info.name = c.name;
  info.architecture = c.architecture;
  info.n_layers = c.n_layers;
  info.d_model = c.d_model;
  info.d_ff = c.d_ff;
  info.n_heads = c.n_heads;
  info.n_kv_heads = c.n_kv_heads;
  info.head_dim = c.head_dim;
  info.vocab_size = c.vocab_size;
  info.n_ctx_train = c.n_ctx_train;
  info.weight_types = checkpoint.weight_types();
  info.file_bytes = checkpoint.file_bytes();
  info.device = model.backend->name();
  info.kernels = model.backend->kernels();
  info.notices = checkpoint.notices();
}

Status load_lora(const Checkpoint& checkpoint, const LoadOptions& options, ModelImpl& model) {
  if (options.lora.empty()) return ok();
  ThreadPool pool(options.n_threads > 0 ? options.n_threads : available_cpus());
  BN_ASSIGN_OR_RETURN(const LoraAdapter adapter, read_lora_adapter(options.lora, checkpoint, pool));
  if (adapter.base.checksum.empty()) {
    model.info.notices.push_back(
        fmt::format("{} does not say which base it belongs to: only its shapes were compared", adapter.path));
  }
  return attach_lora(adapter, options.lora_scale, pool, model);
}

}  // namespace

LinearLayer& linear_of(LayerWeights& layer, WeightRole role) {
  switch (role) {
    case WeightRole::kQ:
    case WeightRole::kQInputNorm: return layer.q;
    case WeightRole::kK:
    case WeightRole::kKInputNorm: return layer.k;
    case WeightRole::kV:
    case WeightRole::kVInputNorm: return layer.v;
    case WeightRole::kO:
    case WeightRole::kOInputNorm: return layer.o;
    case WeightRole::kGate:
    case WeightRole::kGateInputNorm: return layer.gate;
    case WeightRole::kUp:
    case WeightRole::kUpInputNorm: return layer.up;
    default: return layer.down;
  }
}

Result<Model> Model::load(const std::string& path, const LoadOptions& options) { return load_model(path, options, {}); }

Result<Model> load_model(const std::string& path, const LoadOptions& options, MeasuringOptions measuring) {
  if (!options.lora.empty() && options.device.find(',') != std::string::npos) {
    return unsupported("{} share whole steps of a model, which have no adapters; name one device", options.device);
  }
  BN_ASSIGN_OR_RETURN(const std::string resolved, find_model(path));
  auto model = std::make_shared<ModelImpl>();
  model->act_quant = options.act_quant;
  model->backend = std::move(measuring.backend);
  if (!model->backend) {
    BN_ASSIGN_OR_RETURN(model->backend, make_backend(options.device));
  }
  CheckpointOptions checkpoint_options;
  checkpoint_options.i2s_arm64 = options.i2s_arm64;
  checkpoint_options.verify_checksums = options.verify_checksums;
  checkpoint_options.tokenizer_path = options.tokenizer_path;
  checkpoint_options.pre_tokenizer = options.pre_tokenizer;
  BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(resolved, checkpoint_options));
  model->config = checkpoint.config();
  model->sparse_ffn = options.sparse_ffn && model->config.gate_activation == GateActivation::kRelu2;
  if (measuring.gate_density > 0) {
    if (!model->backend->host_memory()) {
      return unsupported("densities are imposed on the host's memory, which {} does not work on",
                         model->backend->name());
    }
    constexpr uint64_t kSeed = 1;
    model->imposed.emplace(measuring.gate_density, measuring.down_density, model->config.d_ff, kSeed);
  }
  describe(checkpoint, *model);
  BN_ASSIGN_OR_RETURN(model->cache, WeightCache::open(checkpoint, *model->backend, options));
  BN_RETURN_IF_ERROR(Loader(checkpoint, options, *model).load());
  BN_RETURN_IF_ERROR(model->cache->save());
  if (!model->cache->notice().empty()) model->info.notices.push_back(model->cache->notice());
  BN_RETURN_IF_ERROR(load_lora(checkpoint, options, *model));
  BN_RETURN_IF_ERROR(fuse(*model));
  if (checkpoint.vocabulary()) {
    BN_ASSIGN_OR_RETURN(model->tokenizer, make_tokenizer(*checkpoint.vocabulary(), resolved));
    // Those that the vocabulary came with are told already.
    const std::vector<std::string>& notices = vocabulary_of(*model->tokenizer).notices;
    model->info.notices.insert(model->info.notices.end(),
                               notices.begin() + ptrdiff_t(checkpoint.vocabulary()->notices.size()), notices.end());
  }
  return Model(std::move(model));
}

const ModelInfo& Model::info() const { return impl_->info; }
const Tokenizer* Model::tokenizer() const { return impl_->tokenizer ? &*impl_->tokenizer : nullptr; }

}  // namespace bitnet
