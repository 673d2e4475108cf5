#include "train/cuda/cuda_ranks_engine.h"

#include "kernels/cuda/rank_threads.h"
#include "model/forward.h"
#include "train/cuda/cuda_rank.h"
#include "train/cuda/cuda_update.h"
#include "train/ranks/watch.h"

#include <algorithm>

namespace bitnet {
namespace {

using Values = CudaRank::Values;

class CudaRanksEngine final : public TrainEngine {
 public:
  CudaRanksEngine(const ModelConfig& config, const ParameterLayout& layout, const EngineOptions& options,
                  RopeTables rope)
      : config_(config),
        layout_(layout),
        options_(options),
        shards_(ShardLayout::make(config, options.ranks.n)),
        rope_(std::move(rope)),
        ranks_(options.ranks.devices.size()) {}
  ~CudaRanksEngine() override;

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
  Result<CodeShares> count_codes() override { return ranks_[0]->count_codes(); }
  Result<TernaryLinear> linear(const WeightSpec& spec) override { return ranks_[0]->linear(spec); }
  uint64_t activation_bytes() const override { return ranks_.size() * ranks_[0]->activation_bytes(); }

 private:
  Status connect();
  Status told(int member, Status status) const {
    if (!status) {
      status.error().add_context(fmt::format("training on {}, rank {} of {}", options_.ranks.devices[size_t(member)],
                                             options_.ranks.first + member, options_.ranks.n));
    }
    return status;
  }
  // job(member, its rank) on every rank's thread.
  template <class Job>
  Status run(const Job& job);
  template <class Fn>
  Status for_images(const Fn& fn);
  float* image_of(int member, PoolVector<float>& image) const {
    return member == 0 && options_.ranks.leads() ? image.data() : nullptr;
  }
  int64_t n_tokens() const { return options_.graph.n_sequences * options_.graph.n_positions; }
  // What a rank has of a part; empty where it has none.
  std::span<const int32_t> share_of(std::span<const int32_t> all, int member) const;

  const ModelConfig& config_;
  const ParameterLayout& layout_;
  const EngineOptions options_;
  const ShardLayout shards_;
  const RopeTables rope_;
  std::unique_ptr<RankThreads> threads_;
  std::unique_ptr<Collectives> collectives_;
  std::vector<std::unique_ptr<CudaRank>> ranks_;
  std::unique_ptr<PeerWatch> watch_;              // null without other processes
  PoolVector<float> first_, second_, gradients_;  // the host's images
};

CudaRanksEngine::~CudaRanksEngine() {
  watch_.reset();
  // Another process may have ended, or may wait for a call that will not come.
  if (collectives_ && options_.ranks.peers && !options_.ranks.peers->left()) collectives_->abort();
  for (const auto& rank : ranks_) {
    if (rank) rank->drain();
  }
  collectives_.reset();
}

template <class Job>
Status CudaRanksEngine::run(const Job& job) {
  if (watch_) watch_->begin();
  Status status =
      threads_->run([&](int member) { return job(member, *ranks_[size_t(member)]); }, [&] { collectives_->abort(); });
  if (!watch_) return status;
  BN_RETURN_IF_ERROR(watch_->end());
  return status;
}

Status CudaRanksEngine::start() {
  const TrainRanks& ranks = options_.ranks;
  BN_ASSIGN_OR_RETURN(threads_, RankThreads::create(int(ranks.devices.size())));
  Status made = Collectives::available();
  if (made) {
    made = threads_->run([&](int member) -> Status {
      auto rank = CudaRank::create(config_, shards_, options_, rope_.view, member);
      if (!rank) return told(member, std::move(rank.error()));
      ranks_[size_t(member)] = *std::move(rank);
      return ok();
    });
  }
  // Nobody waits for the connection of one that is not there.
  BN_RETURN_IF_ERROR(ranks.peers ? ranks.peers->agree(made) : made);
  const Status connected = connect();
  BN_RETURN_IF_ERROR(ranks.peers ? ranks.peers->agree(connected) : connected);
  if (!ranks.leads()) return ok();
  const auto n = size_t(layout_.n_values());
  parameters_.resize(n);
  first_.resize(n);
  if (options_.optimizer.kind == OptimizerKind::kAdamW) second_.resize(n);
  if (options_.keeps_average) average_.resize(n);
  return ok();
}

Status CudaRanksEngine::connect() {
  const TrainRanks& ranks = options_.ranks;
  std::vector<int> devices;
  for (const auto& rank : ranks_) devices.push_back(rank->device());
  Collectives::Id id = {};
  if (ranks.leads()) {
    BN_ASSIGN_OR_RETURN(id, Collectives::new_id());
  }
  if (ranks.peers) {
    BN_ASSIGN_OR_RETURN(const std::string sent,
                        ranks.peers->meet(ranks.leads() ? std::string_view(id.data(), id.size()) : ""));
    if (sent.size() != id.size()) {
      return make_error(ErrorCode::kInternal, "rank 0 sent {} bytes instead of an id of {}", sent.size(), id.size());
    }
    std::copy(sent.begin(), sent.end(), id.begin());
  }
  BN_ASSIGN_OR_RETURN(collectives_, Collectives::create(devices, ranks.first, ranks.n, id));
  for (const auto& rank : ranks_) rank->connect(*collectives_);
  if (ranks.peers) watch_ = std::make_unique<PeerWatch>(*ranks.peers, [this] { collectives_->abort(); });
  return ok();
}

std::span<const int32_t> CudaRanksEngine::share_of(std::span<const int32_t> all, int member) const {
  const size_t n = size_t(n_tokens()), begin = size_t(options_.ranks.first + member) * n;
  return begin < all.size() ? all.subspan(begin, n) : std::span<const int32_t>();
}

std::vector<Optimizer::State> CudaRanksEngine::optimizer_states() {
  std::vector<Optimizer::State> states;
  const auto add = [&](const char* name, PoolVector<float>& values) {
    if (values.empty()) return;
    states.push_back({name, DType::kF32, {int64_t(values.size())}, std::as_writable_bytes(std::span(values))});
  };
  add("first_moment", first_);
  add("second_moment", second_);
  return states;
}

// fn(values, host's image) of everything that a checkpoint keeps.
template <class Fn>
Status CudaRanksEngine::for_images(const Fn& fn) {
  BN_RETURN_IF_ERROR(fn(Values::kParameters, parameters_));
  if (options_.keeps_average) BN_RETURN_IF_ERROR(fn(Values::kAverage, average_));
  BN_RETURN_IF_ERROR(fn(Values::kFirstMoment, first_));
  if (options_.optimizer.kind == OptimizerKind::kAdamW) BN_RETURN_IF_ERROR(fn(Values::kSecondMoment, second_));
  return ok();
}

Status CudaRanksEngine::fetch() {
  return for_images([&](Values which, PoolVector<float>& image) {
    return run([&](int member, CudaRank& rank) { return rank.fetch(which, layout_, image_of(member, image)); });
  });
}

Status CudaRanksEngine::send() {
  return for_images([&](Values which, PoolVector<float>& image) {
    return run([&](int member, CudaRank& rank) { return rank.send(which, layout_, image_of(member, image)); });
  });
}

Status CudaRanksEngine::prepare(const LayerQuantization& quantization, bool averaged) {
  return run([&](int, CudaRank& rank) { return rank.prepare(quantization, averaged); });
}

Result<double> CudaRanksEngine::evaluate(std::span<const int32_t> ids, std::span<const int32_t> targets) {
  double loss = 0;
  BN_RETURN_IF_ERROR(run([&](int member, CudaRank& rank) -> Status {
    BN_ASSIGN_OR_RETURN(const double sum, rank.evaluate(share_of(ids, member), share_of(targets, member)));
    if (member == 0) loss = sum;
    return ok();
  }));
  return loss;
}

Status CudaRanksEngine::begin_step(int64_t n_parts) {
  return run([&](int, CudaRank& rank) { return rank.begin_step(n_parts); });
}

Status CudaRanksEngine::backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, float factor) {
  if (int64_t(ids.size()) != options_.ranks.n * n_tokens()) {
    return make_error(ErrorCode::kInternal, "a part of {} tokens for {} ranks of {}", ids.size(), options_.ranks.n,
                      n_tokens());
  }
  return run([&](int member, CudaRank& rank) {
    return rank.backpropagate(share_of(ids, member), share_of(targets, member), factor);
  });
}

Result<StepSums> CudaRanksEngine::step_sums() {
  StepSums all;
  BN_RETURN_IF_ERROR(run([&](int member, CudaRank& rank) -> Status {
    BN_ASSIGN_OR_RETURN(const StepSums sums, rank.step_sums());
    if (member == 0) all = sums;
    return ok();
  }));
  return all;
}

Status CudaRanksEngine::update(const UpdateRates& rates) {
  return run([&](int, CudaRank& rank) { return rank.update(rates); });
}

Status CudaRanksEngine::move_average(float keep, float take) {
  return run([&](int, CudaRank& rank) { return rank.move_average(keep, take); });
}

Result<std::span<const float>> CudaRanksEngine::gradients() {
  if (options_.ranks.leads()) gradients_.resize(size_t(layout_.n_values()));
  BN_RETURN_IF_ERROR(run([&](int member, CudaRank& rank) {
    return rank.fetch(Values::kGradients, layout_, image_of(member, gradients_));
  }));
  return std::span<const float>(gradients_);
}

}  // namespace

Result<std::unique_ptr<TrainEngine>> make_cuda_ranks_engine(const ModelConfig& config, const ParameterLayout& layout,
                                                            const EngineOptions& options) {
  BN_RETURN_IF_ERROR(check_cuda_options(layout, options));
  BN_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> host, make_backend("cpu"));
  BN_ASSIGN_OR_RETURN(RopeTables rope, make_rope_tables(*host, config, options.graph.n_positions));
  auto engine = std::make_unique<CudaRanksEngine>(config, layout, options, std::move(rope));
  BN_RETURN_IF_ERROR(engine->start());
  return std::unique_ptr<TrainEngine>(std::move(engine));
}

}  // namespace bitnet
