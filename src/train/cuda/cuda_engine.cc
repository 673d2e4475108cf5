#include "train/cuda/cuda_engine.h"

#include "kernels/cuda/cuda_error.h"
#include "model/forward.h"
#include "train/cuda/cuda_codes.h"
#include "train/cuda/cuda_update.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

class CudaEngine final : public TrainEngine {
 public:
  CudaEngine(const ModelConfig& config, const ParameterLayout& layout, const EngineOptions& options, RopeTables rope,
             std::unique_ptr<CudaContext> context)
      : layout_(layout),
        options_(options),
        rope_(std::move(rope)),
        context_(std::move(context)),
        graph_(config, layout, rope_.view, *context_, options.graph),
        codes_(*context_) {}

  Status start();
  std::vector<Optimizer::State> optimizer_states() override;
  Status fetch() override;
  Status send() override;
  Status prepare(const LayerQuantization& quantization, bool averaged) override;
  Result<double> evaluate(std::span<const int32_t> ids, std::span<const int32_t> targets) override;
  Status begin_step(int64_t n_parts) override;
  Status backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, float factor) override;
  Result<StepSums> step_sums() override;
  Status update(const UpdateRates& rates) override;
  Status move_average(float keep, float take) override;
  Result<std::span<const float>> gradients() override;
  Result<CodeShares> count_codes() override;
  Result<TernaryLinear> linear(const WeightSpec& spec) override;
  uint64_t activation_bytes() const override { return activation_bytes_; }

 private:
  bool adamw() const { return options_.optimizer.kind == OptimizerKind::kAdamW; }
  // fn(host's image, device's) of everything that a checkpoint keeps.
  template <class Fn>
  Status for_images(const Fn& fn) {
    BN_RETURN_IF_ERROR(fn(parameters_, device_parameters_));
    if (!average_.empty()) BN_RETURN_IF_ERROR(fn(average_, device_average_));
    BN_RETURN_IF_ERROR(fn(first_, device_first_));
    if (adamw()) BN_RETURN_IF_ERROR(fn(second_, device_second_));
    return ok();
  }

  const ParameterLayout& layout_;
  EngineOptions options_;
  RopeTables rope_;
  std::unique_ptr<CudaContext> context_;
  Graph<CudaContext> graph_;
  CudaCodes codes_;
  uint64_t activation_bytes_ = 0;
  PoolVector<float> first_, second_, gradients_;  // the host's images of the moments; gradients where asked for
  float *device_parameters_ = nullptr, *device_gradients_ = nullptr, *device_average_ = nullptr;
  float *device_first_ = nullptr, *device_second_ = nullptr;
  uint8_t* decays_ = nullptr;
};

Status CudaEngine::start() {
  const int64_t n = layout_.n_values(), n_bytes = n * int64_t{sizeof(float)};
  graph_.reserve();
  DeviceMemory& memory = context_->memory();
  activation_bytes_ = memory.size_bytes();
  memory.plan(&device_parameters_, n_bytes);
  memory.plan(&device_gradients_, n_bytes);
  memory.plan(&device_first_, n_bytes);
  if (adamw()) memory.plan(&device_second_, n_bytes);
  if (options_.keeps_average) memory.plan(&device_average_, n_bytes);
  memory.plan(&decays_, n / cuda::kDecayGroup);
  int64_t largest = 0;
  for (const ParameterSlice& slice : layout_.slices()) largest = std::max(largest, slice.n_values);
  codes_.plan(largest);
  BN_RETURN_IF_ERROR(context_->take_memory(rope_.view));

  parameters_.resize(size_t(n));
  first_.resize(size_t(n));
  if (adamw()) second_.resize(size_t(n));
  if (options_.keeps_average) average_.resize(size_t(n));
  static_assert(kParameterAlignment % cuda::kDecayGroup == 0);
  std::vector<uint8_t> decays(size_t(n / cuda::kDecayGroup), 0);
  for (const ParameterSlice& slice : layout_.slices()) {
    if (!slice.decays()) continue;
    const int64_t last = (slice.n_values + cuda::kDecayGroup - 1) / cuda::kDecayGroup;
    std::fill_n(decays.begin() + slice.offset / cuda::kDecayGroup, last, uint8_t{1});
  }
  return context_->to_device(decays.data(), decays_, decays.size());
}

std::vector<Optimizer::State> CudaEngine::optimizer_states() {
  std::vector<Optimizer::State> states;
  const auto add = [&](const char* name, PoolVector<float>& values) {
    if (values.empty()) return;
    states.push_back({name, DType::kF32, {int64_t(values.size())}, std::as_writable_bytes(std::span(values))});
  };
  add("first_moment", first_);
  add("second_moment", second_);
  return states;
}

Status CudaEngine::fetch() {
  BN_RETURN_IF_ERROR(context_->enter());
  return for_images([&](PoolVector<float>& image, float* device) {
    return context_->to_host(device, image.data(), image.size() * sizeof(float));
  });
}

Status CudaEngine::send() {
  BN_RETURN_IF_ERROR(context_->enter());
  return for_images([&](PoolVector<float>& image, float* device) {
    return context_->to_device(image.data(), device, image.size() * sizeof(float));
  });
}

Status CudaEngine::prepare(const LayerQuantization& quantization, bool averaged) {
  BN_RETURN_IF_ERROR(context_->enter());
  BN_RETURN_IF_ERROR(check_cuda_quantization(quantization));
  graph_.prepare(averaged ? device_average_ : device_parameters_, quantization);
  return context_->take_status();
}

Result<double> CudaEngine::evaluate(std::span<const int32_t> ids, std::span<const int32_t> targets) {
  BN_RETURN_IF_ERROR(context_->enter());
  BN_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(context_->totals, 0, sizeof(double), context_->stream()),
                          "clearing the loss");
  (void)graph_.evaluate(ids, targets);
  BN_RETURN_IF_ERROR(context_->take_status());
  double loss = 0;
  BN_RETURN_IF_ERROR(context_->to_host(context_->totals, &loss, sizeof loss));
  return loss;
}

Status CudaEngine::begin_step(int64_t) {
  BN_RETURN_IF_ERROR(context_->enter());
  const size_t n_bytes = size_t(layout_.n_values()) * sizeof(float);
  BN_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(context_->totals, 0, sizeof(double), context_->stream()),
                          "clearing the loss");
  BN_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(device_gradients_, 0, n_bytes, context_->stream()), "clearing gradients");
  return ok();
}

Status CudaEngine::backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, float factor) {
  BN_RETURN_IF_ERROR(context_->enter());
  (void)graph_.backpropagate(ids, targets, factor, device_gradients_);
  return context_->take_status();
}

Result<StepSums> CudaEngine::step_sums() {
  BN_RETURN_IF_ERROR(context_->enter());
  cuda::sum_squares(context_->stream(), device_gradients_, layout_.n_values(), context_->sums, context_->totals + 1);
  BN_RETURN_IF_ERROR(context_->take_status());
  double totals[2] = {};
  BN_RETURN_IF_ERROR(context_->to_host(context_->totals, totals, sizeof totals));
  return StepSums{totals[0], std::sqrt(totals[1])};
}

Status CudaEngine::update(const UpdateRates& rates) {
  BN_RETURN_IF_ERROR(context_->enter());
  update_values(context_->stream(), options_.optimizer, rates,
                {layout_.n_values(), decays_, device_gradients_, device_first_, device_second_, device_parameters_});
  return context_->take_status();
}

Status CudaEngine::move_average(float keep, float take) {
  BN_RETURN_IF_ERROR(context_->enter());
  cuda::move_average(context_->stream(), keep, take, layout_.n_values(), device_parameters_, device_average_);
  return context_->take_status();
}

Result<std::span<const float>> CudaEngine::gradients() {
  BN_RETURN_IF_ERROR(context_->enter());
  gradients_.resize(size_t(layout_.n_values()));
  BN_RETURN_IF_ERROR(context_->to_host(device_gradients_, gradients_.data(), gradients_.size() * sizeof(float)));
  return std::span<const float>(gradients_);
}

Result<CodeShares> CudaEngine::count_codes() {
  BN_RETURN_IF_ERROR(context_->enter());
  return codes_.count();
}

Result<TernaryLinear> CudaEngine::linear(const WeightSpec& spec) {
  BN_RETURN_IF_ERROR(context_->enter());
  return codes_.linear(graph_.linear(spec.role, spec.layer));
}

}  // namespace

Result<std::unique_ptr<TrainEngine>> make_cuda_engine(const ModelConfig& config, const ParameterLayout& layout,
                                                      const EngineOptions& options) {
  BN_RETURN_IF_ERROR(check_cuda_options(layout, options));
  BN_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> host, make_backend("cpu"));
  BN_ASSIGN_OR_RETURN(RopeTables rope, make_rope_tables(*host, config, options.graph.n_positions));
  const cuda::Precision precision =
      options.precision == TrainPrecision::kBf16 ? cuda::Precision::kBf16 : cuda::Precision::kFloat32;
  BN_ASSIGN_OR_RETURN(
      std::unique_ptr<CudaContext> context,
      CudaContext::create(options.device, precision, config, attention_shape(config, options.graph), rope.view));
  auto engine = std::make_unique<CudaEngine>(config, layout, options, std::move(rope), std::move(context));
  BN_RETURN_IF_ERROR(engine->start());
  return std::unique_ptr<TrainEngine>(std::move(engine));
}

}  // namespace bitnet
