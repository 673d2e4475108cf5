#pragma once

#include "kernels/cuda/cuda_fused.h"
#include "kernels/cuda/cuda_group.h"

#include <memory>
#include <vector>

namespace bitnet {

// A model's steps by several GPUs together, each with its rows of the matrices and its heads' caches. A step's logits
// are gathered in the host's memory, best tokens chosen there among the ranks'.
class GroupFused final : public FusedModel {
 public:
  // Null where one GPU would have no fused model either.
  static Result<std::unique_ptr<FusedModel>> create(const CudaGroup& group, const Collectives& collectives,
                                                    const ModelGraph& graph);
  Result<std::unique_ptr<bitnet::Stream>> new_stream(const StreamOptions& options) const;
  // One rank's part of what new_stream() gave.
  static bitnet::Stream& stream_of(bitnet::Stream& stream, int rank);

  bool takes(std::span<const SequencePart> parts) const override { return ranks_[0]->takes(parts); }
  Status step(bitnet::Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope, int64_t n_best,
              MatrixView logits) const override;
  Status step_best(bitnet::Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope,
                   std::span<BestToken> best) const override;
  Result<std::vector<StepPhase>> measure(bitnet::Stream& stream, std::span<const SequencePart> parts,
                                         const RopeTable& rope) const override;

 private:
  class Stream;
  GroupFused(const CudaGroup& group, const ModelGraph& graph) : group_(group), graph_(graph) {}
  template <class RankStep>
  Status run(Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope, const RankStep& step) const;

  const CudaGroup& group_;
  const ModelGraph graph_;
  std::vector<RowShare> ids_;  // every rank's rows of the head
  std::vector<std::unique_ptr<CudaFused>> ranks_;
};

// Of one layer's keys, or values, on a GPU with some of the heads, where a plane of all heads takes `plane_bytes`.
constexpr size_t cache_plane_bytes(size_t plane_bytes, int64_t n_heads, int64_t n_all_heads) {
  return (plane_bytes * size_t(n_heads) / size_t(n_all_heads) + 255) / 256 * 256;
}

}  // namespace bitnet
