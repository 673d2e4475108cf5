#include "kernels/cuda/group_fused.h"

#include "kernels/cuda/best_logits.h"
#include "kernels/cuda/group_memory.h"

#include <algorithm>
#include <cmath>

namespace bitnet {

// Every rank's stream, and what it is told of a step.
class GroupFused::Stream final : public bitnet::Stream {
 public:
  ThreadPool& pool() override { return pool_; }

  struct Rank {
    std::unique_ptr<bitnet::Stream> stream;
    std::vector<KvLayer> kv;
    std::vector<SequencePart> parts;
    std::vector<float> logits;  // [rows, the rank's ids]
    std::vector<BestToken> best;
  };
  std::vector<Rank> ranks;

 private:
  ThreadPool pool_{1};
};

Result<std::unique_ptr<FusedModel>> GroupFused::create(const CudaGroup& group, const Collectives& collectives,
                                                       const ModelGraph& graph) {
  std::unique_ptr<GroupFused> fused(new GroupFused(group, graph));
  const auto shares = [](const Matrix* matrix) { return static_cast<const GroupMatrix*>(matrix)->shares(); };
  fused->ids_ = shares(graph.head);
  for (int rank = 0; rank < group.n_ranks(); ++rank) {
    const auto part = [&](const Matrix* matrix) { return static_cast<const GroupMatrix*>(matrix)->part(rank); };
    const auto copy = [&](const float* norm) { return reinterpret_cast<const float*>(part_of(norm, rank)); };
    const size_t i = size_t(rank);
    ModelGraph of_rank = graph;
    of_rank.embedding = part(graph.embedding);
    of_rank.head = part(graph.head);
    of_rank.output_norm = copy(graph.output_norm);
    of_rank.vocab_size = fused->ids_[i].n;
    for (LayerGraph& layer : of_rank.layers) {
      for (const Matrix** matrix : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
        *matrix = part(*matrix);
      }
      for (const float** norm : {&layer.attn_norm, &layer.attn_sub_norm, &layer.ffn_norm, &layer.ffn_sub_norm}) {
        *norm = copy(*norm);
      }
    }
    const LayerGraph& first = graph.layers[0];
    GroupRank shared;
    shared.rank = rank;
    shared.collectives = &collectives;
    shared.q = shares(first.q);
    shared.model = shares(first.o);
    shared.ff = shares(first.gate);
    shared.ids = shares(graph.embedding);
    of_rank.n_heads = shared.q[i].n / graph.head_dim;
    of_rank.n_kv_heads = shares(first.k)[i].n / graph.head_dim;
    of_rank.d_ff = shared.ff[i].n;
    std::unique_ptr<CudaFused> made = CudaFused::create(group.rank(rank), of_rank, std::move(shared));
    if (!made) return std::unique_ptr<FusedModel>();
    fused->ranks_.push_back(std::move(made));
  }
  return std::unique_ptr<FusedModel>(std::move(fused));
}

Result<std::unique_ptr<bitnet::Stream>> GroupFused::new_stream(const StreamOptions& options) const {
  auto stream = std::make_unique<Stream>();
  stream->ranks.resize(ranks_.size());
  for (int i = 0; i < group_.n_ranks(); ++i) {
    StreamOptions of_rank = options;
    of_rank.fused = ranks_[size_t(i)].get();
    Stream::Rank& rank = stream->ranks[size_t(i)];
    BN_ASSIGN_OR_RETURN(rank.stream, group_.rank(i).new_stream(of_rank));
    rank.kv.resize(graph_.layers.size());
    rank.parts.reserve(size_t(options.max_parts));
  }
  return std::unique_ptr<bitnet::Stream>(std::move(stream));
}

bitnet::Stream& GroupFused::stream_of(bitnet::Stream& stream, int rank) {
  return *static_cast<Stream&>(stream).ranks[size_t(rank)].stream;
}

// step(rank's number, its stream and scratch, its rotation tables) on every GPU.
template <class RankStep>
Status GroupFused::run(Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope,
                       const RankStep& step) const {
  return group_.run([&](int i) -> Status {
    Stream::Rank& rank = stream.ranks[size_t(i)];
    const std::span<const KvLayer> all = parts[0].kv;
    const int64_t n_heads =
        static_cast<const GroupMatrix*>(graph_.layers[0].k)->shares()[size_t(i)].n / graph_.head_dim;
    const size_t plane_bytes = size_t(static_cast<std::byte*>(all[0].v) - static_cast<std::byte*>(all[0].k));
    const size_t part_bytes = cache_plane_bytes(plane_bytes, n_heads, all[0].n_kv_heads);
    std::byte* plane = part_of(all[0].k, i);
    for (size_t layer = 0; layer < all.size(); ++layer, plane += 2 * part_bytes) {
      rank.kv[layer] = all[layer];
      rank.kv[layer].n_kv_heads = n_heads;
      rank.kv[layer].k = plane;
      rank.kv[layer].v = plane + part_bytes;
    }
    rank.parts.assign(parts.begin(), parts.end());
    for (SequencePart& part : rank.parts) part.kv = rank.kv;
    RopeTable angles = rope;
    angles.cos = reinterpret_cast<const float*>(part_of(rope.cos, i));
    angles.sin = reinterpret_cast<const float*>(part_of(rope.sin, i));
    return step(size_t(i), rank, angles);
  });
}

Status GroupFused::step(bitnet::Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope,
                        int64_t n_best, MatrixView logits) const {
  if (n_best == 1 && logits.n_rows == 1) {
    return step_for_best(logits, [&](std::span<BestToken> best) { return step_best(stream, parts, rope, best); });
  }
  const auto step = [&](size_t i, Stream::Rank& rank, const RopeTable& angles) -> Status {
    const RowShare& ids = ids_[i];
    rank.logits.resize(size_t(logits.n_rows * ids.n));
    const MatrixView mine{rank.logits.data(), logits.n_rows, ids.n};
    BN_RETURN_IF_ERROR(ranks_[i]->step(*rank.stream, rank.parts, angles, n_best, mine));
    for (int64_t row = 0; row < logits.n_rows; ++row) {
      std::copy_n(mine.row(row), ids.n, logits.row(row) + ids.first);
    }
    if (logits.n_rows > 0) return ok();
    return group_.rank(int(i)).wait(*rank.stream);  // a step of another stream must not come between
  };
  return run(static_cast<Stream&>(stream), parts, rope, step);
}

Status GroupFused::step_best(bitnet::Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope,
                             std::span<BestToken> best) const {
  auto& ranks = static_cast<Stream&>(stream).ranks;
  BN_RETURN_IF_ERROR(
      run(static_cast<Stream&>(stream), parts, rope, [&](size_t i, Stream::Rank& rank, const RopeTable& angles) {
        rank.best.resize(best.size());
        return ranks_[i]->step_best(*rank.stream, rank.parts, angles, rank.best);
      }));
  for (size_t row = 0; row < best.size(); ++row) {
    for (size_t i = 0; i < ranks.size(); ++i) {
      const BestToken token{ranks[i].best[row].id + int32_t(ids_[i].first), ranks[i].best[row].logit};
      // Of equal logits the least id, which an earlier rank has; one that is not finite is to be seen.
      if (i == 0 || (std::isfinite(best[row].logit) && !(token.logit <= best[row].logit))) best[row] = token;
    }
  }
  return ok();
}

Result<std::vector<StepPhase>> GroupFused::measure(bitnet::Stream&, std::span<const SequencePart>,
                                                   const RopeTable&) const {
  return unsupported("the phases of a step are measured on one GPU only");
}

}  // namespace bitnet
