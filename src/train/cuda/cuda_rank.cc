#include "train/cuda/cuda_rank.h"

#include "kernels/cuda/cuda_error.h"
#include "train/cuda/cuda_update.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

constexpr int64_t kFloat_bytes = sizeof(float);
constexpr int64_t kTotals = 2;  // of a rank: the loss, and the gradient's squares

}  // namespace

Result<std::unique_ptr<CudaRank>> CudaRank::create(const ModelConfig& config, const ShardLayout& shards,
                                                   const EngineOptions& options, const RopeTable& rope, int member) {
  const cuda::Precision precision =
      options.precision == TrainPrecision::kBf16 ? cuda::Precision::kBf16 : cuda::Precision::kFloat32;
  BN_ASSIGN_OR_RETURN(std::unique_ptr<CudaContext> context,
                      CudaContext::create(options.ranks.devices[size_t(member)], precision, config,
                                          attention_shape(config, options.graph), rope));
  std::unique_ptr<CudaRank> made(new CudaRank(config, shards, options, rope, member, std::move(context)));
  BN_RETURN_IF_ERROR(made->start(rope));
  return made;
}

CudaRank::CudaRank(const ModelConfig& config, const ShardLayout& shards, const EngineOptions& options,
                   const RopeTable& rope, int member, std::unique_ptr<CudaContext> context)
    : shards_(shards),
      options_(options),
      member_(member),
      rank_(options.ranks.first + member),
      context_(std::move(context)),
      graph_(config, shards.layout(), rope, *context_, options.graph),
      codes_(*context_) {}

CudaRank::~CudaRank() {
  drain();
  for (const cudaEvent_t event : complete_) (void)cudaEventDestroy(event);
  if (reduced_ != nullptr) (void)cudaEventDestroy(reduced_);
  if (reducing_ != nullptr) (void)cudaStreamDestroy(reducing_);
}

void CudaRank::drain() const {
  (void)context_->enter();
  (void)cudaStreamSynchronize(stream());
  if (reducing_ != nullptr) (void)cudaStreamSynchronize(reducing_);
}

Status CudaRank::start(const RopeTable& rope) {
  graph_.reserve();
  const int64_t n = shards_.n_shard_values(), n_bytes = n * kFloat_bytes, n_ranks = shards_.n_ranks();
  int64_t largest = 0;
  for (const ParameterSlice& slice : shards_.layout().slices()) {
    largest = std::max(largest, slice.n_values);
    n_linears_ += int(slice.spec.kind == WeightKind::kLinear);
  }
  DeviceMemory& memory = context_->memory();
  activation_bytes_ = memory.size_bytes();
  memory.plan(&gradients_, shards_.layout().n_values() * kFloat_bytes);
  memory.plan(&floats_, n_ranks * shards_.buckets()[0].piece * kFloat_bytes);
  memory.plan(&parameters_, n_bytes);
  memory.plan(&shard_gradients_, n_bytes);
  memory.plan(&first_, n_bytes);
  if (adamw()) memory.plan(&second_, n_bytes);
  if (options_.keeps_average) memory.plan(&average_, n_bytes);
  memory.plan(&decays_, n / cuda::kDecayGroup);
  memory.plan(&linears_, n_linears_ * int64_t{sizeof(cuda::ShardedLinear)});
  memory.plan(&sum_parts_, int64_t{n_linears_} * cuda::kShardSumParts * int64_t{sizeof(double)});
  memory.plan(&weight_sums_, n_ranks * n_linears_ * int64_t{sizeof(double)});
  memory.plan(&all_totals_, n_ranks * kTotals * int64_t{sizeof(double)});
  codes_.plan(largest);
  BN_RETURN_IF_ERROR(context_->take_memory(rope));

  BN_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&reducing_, cudaStreamNonBlocking), "making a stream");
  complete_.resize(shards_.buckets().size());
  for (cudaEvent_t& event : complete_) {
    BN_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  }
  BN_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&reduced_, cudaEventDisableTiming), "making an event");
  return send_tables();
}

// What the kernels have to know of the shard's values.
Status CudaRank::send_tables() {
  static_assert(kParameterAlignment % cuda::kDecayGroup == 0 && kParameterAlignment == cuda::kCodesPerWord);
  std::vector<uint8_t> decays(size_t(shards_.n_shard_values() / cuda::kDecayGroup), 0);
  std::vector<cuda::ShardedLinear> linears;
  for (const ParameterSlice& slice : shards_.layout().slices()) {
    const ShardLayout::Part part = shards_.part(slice, rank_);
    if (slice.decays()) {
      const int64_t n_groups = (part.n + cuda::kDecayGroup - 1) / cuda::kDecayGroup;
      std::fill_n(decays.begin() + part.place / cuda::kDecayGroup, n_groups, uint8_t{1});
    }
    if (slice.spec.kind != WeightKind::kLinear) continue;
    const ShardBucket& bucket = shards_.bucket_of(slice);
    const auto& weight = graph_.linear(slice.spec.role, slice.spec.layer);
    linears.push_back({part.place, part.n, slice.n_values, slice.offset - bucket.begin, bucket.piece, bucket.place,
                       weight.alpha, context_->codes_at(weight.place)});
  }
  BN_RETURN_IF_ERROR(context_->to_device(decays.data(), decays_, decays.size()));
  return context_->to_device(linears.data(), linears_, linears.size() * sizeof linears[0]);
}

float* CudaRank::shard_of(Values which) const {
  switch (which) {
    case Values::kParameters: return parameters_;
    case Values::kAverage: return average_;
    case Values::kFirstMoment: return first_;
    case Values::kSecondMoment: return second_;
    default: return shard_gradients_;
  }
}

Status CudaRank::gather(const float* shard) {
  for (const ShardBucket& bucket : shards_.buckets()) {
    float* const all = gradients_ + bucket.begin;
    float* const mine = all + rank_ * bucket.piece;
    BN_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(mine, shard + bucket.place, size_t(bucket.piece * kFloat_bytes),
                                            cudaMemcpyDeviceToDevice, stream()),
                            "gathering shards");
    BN_RETURN_IF_ERROR(collectives_->all_gather(member_, mine, bucket.piece, all, stream()));
  }
  return ok();
}

Status CudaRank::prepare(const LayerQuantization& quantization, bool averaged) {
  BN_RETURN_IF_ERROR(context_->enter());
  BN_RETURN_IF_ERROR(check_cuda_quantization(quantization));
  const float* const shard = averaged ? average_ : parameters_;
  const int64_t n_floats = shards_.buckets()[0].piece;
  float* const my_floats = floats_ + rank_ * n_floats;
  BN_CUDA_RETURN_IF_ERROR(
      cudaMemcpyAsync(my_floats, shard, size_t(n_floats * kFloat_bytes), cudaMemcpyDeviceToDevice, stream()),
      "gathering shards");
  BN_RETURN_IF_ERROR(collectives_->all_gather(member_, my_floats, n_floats, floats_, stream()));
  if (quantization.is_exact()) {
    double* const my_sums = weight_sums_ + rank_ * n_linears_;
    cuda::sum_shard(stream(), linears_, n_linears_, shard, sum_parts_, my_sums);
    BN_RETURN_IF_ERROR(
        collectives_->all_gather_bytes(member_, my_sums, n_linears_ * int64_t{sizeof(double)}, weight_sums_, stream()));
    const int64_t n_words = shards_.n_shard_values() / cuda::kCodesPerWord;
    auto* const packed = reinterpret_cast<uint32_t*>(gradients_);
    uint32_t* const my_words = packed + rank_ * n_words;
    cuda::pack_shard(stream(), linears_, n_linears_, shard, weight_sums_, shards_.n_ranks(), my_words);
    BN_RETURN_IF_ERROR(
        collectives_->all_gather_bytes(member_, my_words, n_words * int64_t{sizeof(uint32_t)}, packed, stream()));
    cuda::unpack_shards(stream(), context_->precision(), linears_, n_linears_, packed, n_words);
  } else {  // weights between their values and their codes
    BN_RETURN_IF_ERROR(gather(shard));
    graph_.prepare(gradients_, quantization);
  }
  graph_.serve(floats_, quantization);
  return context_->take_status();
}

Status CudaRank::begin_step(int64_t n_parts) {
  BN_RETURN_IF_ERROR(context_->enter());
  const size_t n_bytes = size_t(shards_.layout().n_values() * kFloat_bytes);
  BN_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(context_->totals, 0, sizeof(double), stream()), "clearing the loss");
  BN_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(gradients_, 0, n_bytes, stream()), "clearing gradients");
  n_parts_ = n_parts;
  n_waiting_ = shards_.buckets().size();
  return ok();
}

Status CudaRank::backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, float factor) {
  BN_RETURN_IF_ERROR(context_->enter());
  if (n_parts_ == 0) return make_error(ErrorCode::kInternal, "a step has more parts than it began with");
  const bool last = --n_parts_ == 0;
  graph_.on_layer(last ? [this](int64_t layer) { context_->note(reduce_down_to(layer)); }
                       : std::function<void(int64_t)>());
  (void)graph_.backpropagate(ids, targets, factor, gradients_);
  if (last) context_->note(finish_reduction());
  return context_->take_status();
}

Status CudaRank::reduce(size_t index) {
  const ShardBucket& bucket = shards_.buckets()[index];
  BN_CUDA_RETURN_IF_ERROR(cudaEventRecord(complete_[index], stream()), "recording an event");
  BN_CUDA_RETURN_IF_ERROR(cudaStreamWaitEvent(reducing_, complete_[index], 0), "waiting for gradients");
  return collectives_->reduce_scatter(member_, gradients_ + bucket.begin, bucket.piece, shard_gradients_ + bucket.place,
                                      reducing_);
}

// The buckets whose gradients are complete when the backward pass is through `layer`: the last ones.
Status CudaRank::reduce_down_to(int64_t layer) {
  while (n_waiting_ > 0 && shards_.buckets()[n_waiting_ - 1].layer >= layer) BN_RETURN_IF_ERROR(reduce(--n_waiting_));
  return ok();
}

Status CudaRank::finish_reduction() {
  BN_RETURN_IF_ERROR(reduce_down_to(-1));
  BN_CUDA_RETURN_IF_ERROR(cudaEventRecord(reduced_, reducing_), "recording an event");
  BN_CUDA_RETURN_IF_ERROR(cudaStreamWaitEvent(stream(), reduced_, 0), "waiting for the reduction");
  return ok();
}

// Every rank's, added up in the same order by each.
Result<StepSums> CudaRank::all_sums() {
  BN_RETURN_IF_ERROR(collectives_->all_gather_bytes(member_, context_->totals, kTotals * int64_t{sizeof(double)},
                                                    all_totals_, stream()));
  BN_RETURN_IF_ERROR(context_->take_status());
  std::vector<double> totals(size_t(kTotals * shards_.n_ranks()));
  BN_RETURN_IF_ERROR(context_->to_host(all_totals_, totals.data(), totals.size() * sizeof(double)));
  StepSums sums;
  double squares = 0;
  for (size_t i = 0; i < totals.size(); i += kTotals) {
    sums.loss += totals[i];
    squares += totals[i + 1];
  }
  sums.gradient_norm = std::sqrt(squares);
  return sums;
}

Result<double> CudaRank::evaluate(std::span<const int32_t> ids, std::span<const int32_t> targets) {
  BN_RETURN_IF_ERROR(context_->enter());
  BN_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(context_->totals, 0, sizeof(double), stream()), "clearing the loss");
  if (!ids.empty()) (void)graph_.evaluate(ids, targets);
  BN_ASSIGN_OR_RETURN(const StepSums sums, all_sums());
  return sums.loss;
}

Result<StepSums> CudaRank::step_sums() {
  BN_RETURN_IF_ERROR(context_->enter());
  BN_RETURN_IF_ERROR(finish_reduction());  // of a step without parts
  cuda::sum_squares(stream(), shard_gradients_, shards_.n_shard_values(), context_->sums, context_->totals + 1);
  return all_sums();
}

Status CudaRank::update(const UpdateRates& rates) {
  BN_RETURN_IF_ERROR(context_->enter());
  update_values(stream(), options_.optimizer, rates,
                {shards_.n_shard_values(), decays_, shard_gradients_, first_, second_, parameters_});
  return context_->take_status();
}

Status CudaRank::move_average(float keep, float take) {
  BN_RETURN_IF_ERROR(context_->enter());
  cuda::move_average(stream(), keep, take, shards_.n_shard_values(), parameters_, average_);
  return context_->take_status();
}

Result<CodeShares> CudaRank::count_codes() {
  BN_RETURN_IF_ERROR(context_->enter());
  return codes_.count();
}

Result<TernaryLinear> CudaRank::linear(const WeightSpec& spec) {
  BN_RETURN_IF_ERROR(context_->enter());
  return codes_.linear(graph_.linear(spec.role, spec.layer));
}

Status CudaRank::fetch(Values which, const ParameterLayout& layout, float* image) {
  BN_RETURN_IF_ERROR(context_->enter());
  BN_RETURN_IF_ERROR(gather(shard_of(which)));
  if (image == nullptr) return ok();
  for (const ParameterSlice& slice : shards_.layout().slices()) {
    BN_RETURN_IF_ERROR(context_->to_host(gradients_ + slice.offset,
                                         image + layout.offset(slice.spec.role, slice.spec.layer),
                                         size_t(slice.n_values * kFloat_bytes)));
  }
  return ok();
}

Status CudaRank::send(Values which, const ParameterLayout& layout, const float* image) {
  BN_RETURN_IF_ERROR(context_->enter());
  const int64_t n = shards_.layout().n_values();
  if (image != nullptr) {
    BN_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(gradients_, 0, size_t(n * kFloat_bytes), stream()), "clearing parameters");
    for (const ParameterSlice& slice : shards_.layout().slices()) {
      BN_RETURN_IF_ERROR(context_->to_device(image + layout.offset(slice.spec.role, slice.spec.layer),
                                             gradients_ + slice.offset, size_t(slice.n_values * kFloat_bytes)));
    }
  }
  BN_RETURN_IF_ERROR(collectives_->broadcast(member_, gradients_, n, stream()));
  for (const ShardBucket& bucket : shards_.buckets()) {
    BN_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(shard_of(which) + bucket.place, gradients_ + bucket.begin + rank_ * bucket.piece,
                        size_t(bucket.piece * kFloat_bytes), cudaMemcpyDeviceToDevice, stream()),
        "handing out shards");
  }
  return ok();
}

}  // namespace bitnet
