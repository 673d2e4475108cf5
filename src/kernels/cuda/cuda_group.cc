#include "kernels/cuda/cuda_group.h"

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/group_fused.h"
#include "kernels/cuda/group_memory.h"
#include "kernels/cuda/split_ops.h"

namespace bitnet {

Result<std::unique_ptr<Backend>> CudaGroup::create(std::string_view device, std::span<const int> devices,
                                                   std::vector<std::unique_ptr<CudaBackend>> ranks) {
  if (ranks.size() > size_t(cuda::kMaxRanks)) {
    return invalid_argument("device \"{}\": {} GPUs, expected at most {}", device, ranks.size(), cuda::kMaxRanks);
  }
  std::unique_ptr<CudaGroup> group(new CudaGroup);
  group->device_ = device;
  group->kernels_ = fmt::format("{} x {}", ranks.size(), ranks[0]->kernels());
  group->ranks_ = std::move(ranks);
  Result<std::unique_ptr<Collectives>> collectives = Collectives::create(devices);
  if (!collectives) return std::move(collectives.error().add_context(fmt::format("opening device \"{}\"", device)));
  group->collectives_ = *std::move(collectives);
  BN_ASSIGN_OR_RETURN(group->threads_, RankThreads::create(group->n_ranks()));
  return std::unique_ptr<Backend>(std::move(group));
}

Error CudaGroup::whole_steps() const {
  return unsupported(
      "{} shares models whose layers are all ternary, with one scale a matrix and quantised activations, of a shape "
      "that "
      "the GPU's steps take; this one runs on one GPU only",
      device_);
}

Status CudaGroup::run(const std::function<Status(int)>& job) const {
  const std::lock_guard<std::mutex> lock(running_);
  const auto told = [&](int rank) -> Status {
    Status status = job(rank);
    if (!status) status.error().add_context(fmt::format("computing on GPU {} of {}", rank, device_));
    return status;
  };
  return threads_->run(told, [&] { collectives_->abort(); });  // the others may wait for one that failed
}

Result<std::unique_ptr<Stream>> CudaGroup::new_stream(const StreamOptions& options) const {
  if (options.fused == nullptr) return whole_steps();
  return static_cast<const GroupFused*>(options.fused)->new_stream(options);
}

Result<Buffer> CudaGroup::allocate(size_t size_bytes, CallSite) const {
  if (size_bytes == 0) return Buffer();
  std::vector<Buffer> parts(ranks_.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    BN_ASSIGN_OR_RETURN(parts[i], ranks_[i]->allocate(size_bytes));
  }
  return join_parts(std::move(parts), size_bytes);
}

Result<Buffer> CudaGroup::allocate_cache(const KvLayer& layer, int64_t n_layers, size_t plane_bytes) const {
  const std::vector<RowShare> heads = share_rows(layer.n_kv_heads, layer.n_kv_heads, n_ranks());
  std::vector<Buffer> parts(ranks_.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    const size_t part_bytes = cache_plane_bytes(plane_bytes, heads[i].n, layer.n_kv_heads);
    BN_ASSIGN_OR_RETURN(parts[i], ranks_[i]->allocate(2 * size_t(n_layers) * part_bytes));
  }
  return join_parts(std::move(parts), 2 * size_t(n_layers) * plane_bytes);
}

Status CudaGroup::upload(std::span<const std::byte> from, void* to) const {
  for (int i = 0; i < n_ranks(); ++i) BN_RETURN_IF_ERROR(ranks_[size_t(i)]->upload(from, part_of(to, i)));
  return ok();
}

Status CudaGroup::fetch(Stream& stream, const void* from, std::span<std::byte> to) const {
  return ranks_[0]->fetch(GroupFused::stream_of(stream, 0), from, to);
}

Status CudaGroup::wait(Stream& stream) const {
  for (int i = 0; i < n_ranks(); ++i) BN_RETURN_IF_ERROR(ranks_[size_t(i)]->wait(GroupFused::stream_of(stream, i)));
  return ok();
}

Status CudaGroup::check_kv(DType dtype, int64_t head_dim) const {
  // Its tiles are laid out for all heads together.
  if (dtype == DType::kI8) return unsupported("{} has no int8 cache: take f16, f32 or q8_0", device_);
  return ranks_[0]->check_kv(dtype, head_dim);
}

Result<std::unique_ptr<FusedModel>> CudaGroup::fuse(const ModelGraph& graph) const {
  return GroupFused::create(*this, *collectives_, graph);
}

Status CudaGroup::reserve(std::span<const WeightPlan> plan) const {
  std::vector<std::vector<WeightPlan>> plans(ranks_.size());
  for (const WeightPlan& weight : plan) {
    const bool vector = !weight.table && weight.n_rows == 1;
    if (!vector && weight.row_groups > 0 && weight.row_groups < n_ranks()) {
      return invalid_argument("{} shares a model's key/value heads among {} GPUs, but it has {} only", device_,
                              n_ranks(), weight.row_groups);
    }
    if (!vector && weight.n_rows < 16 * n_ranks()) {
      return invalid_argument("{} shares matrices by tiles of 16 rows among {} GPUs, but the model has one of {} rows",
                              device_, n_ranks(), weight.n_rows);
    }
    const std::vector<RowShare> shares = share_rows(weight.n_rows, weight.row_groups, n_ranks());
    for (size_t i = 0; i < plans.size(); ++i) {
      plans[i].push_back(weight);
      if (!vector) plans[i].back().n_rows = shares[i].n;
    }
  }
  for (size_t i = 0; i < plans.size(); ++i) BN_RETURN_IF_ERROR(ranks_[i]->reserve(plans[i]));
  return ok();
}

Result<std::unique_ptr<Matrix>> CudaGroup::prepare(const TernarySource& source, ThreadPool& pool) const {
  if (!source.scales.groups.empty()) return whole_steps();
  const std::vector<RowShare> shares = share_rows(source.n_rows, source.row_groups, n_ranks());
  std::vector<std::unique_ptr<Matrix>> parts;
  for (int i = 0; i < n_ranks(); ++i) {
    TernarySource part = source;
    part.n_rows = shares[size_t(i)].n;
    part.read_codes = [&source, first = shares[size_t(i)].first](int64_t row, int64_t n, uint8_t* codes) {
      return source.read_codes(first + row, n, codes);
    };
    BN_ASSIGN_OR_RETURN(parts.emplace_back(), rank(i).prepare(part, pool));
  }
  return std::unique_ptr<Matrix>(
      std::make_unique<GroupMatrix>(source.n_rows, source.n_cols, true, shares, std::move(parts)));
}

Result<std::unique_ptr<Matrix>> CudaGroup::prepare(const FloatSource& source, ThreadPool& pool) const {
  const std::vector<RowShare> shares = share_rows(source.n_rows, 0, n_ranks());
  std::vector<std::unique_ptr<Matrix>> parts;
  for (int i = 0; i < n_ranks(); ++i) {
    FloatSource part = source;
    part.n_rows = shares[size_t(i)].n;
    part.read_rows = [&source, first = shares[size_t(i)].first](int64_t row, int64_t n, std::byte* out) {
      return source.read_rows(first + row, n, out);
    };
    BN_ASSIGN_OR_RETURN(parts.emplace_back(), rank(i).prepare(part, pool));
  }
  return std::unique_ptr<Matrix>(
      std::make_unique<GroupMatrix>(source.n_rows, source.n_cols, false, shares, std::move(parts)));
}

}  // namespace bitnet
