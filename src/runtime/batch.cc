#include "runtime/batch.h"

#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <new>

namespace bitnet {
namespace {

Result<BatchOptions> resolve(const BatchOptions& options, const ModelImpl& model) {
  BatchOptions o = options;
  if (!model.fused) {
    return unsupported("{} computes one sequence a step; several together want a device with fused steps, such as cuda",
                       model.backend->name());
  }
  if (o.n_ctx == 0) o.n_ctx = model.config.n_ctx_train;
  if (o.n_ctx < 1 || o.n_ctx > model.config.n_ctx_train) {
    return invalid_argument("a batch of sequences of {} positions, expected 1 to {}", o.n_ctx,
                            model.config.n_ctx_train);
  }
  if (o.max_sequences < 1 || o.max_tokens < o.max_sequences) {
    return invalid_argument(
        "a batch of {} sequences in steps of {} tokens: each must be at least 1, and a step must "
        "have room for a token of each",
        o.max_sequences, o.max_tokens);
  }
  if (o.n_pages == 0) o.n_pages = o.max_sequences * Batch::pages_of(o.n_ctx);
  if (o.n_pages < 1) return invalid_argument("a batch of {} pages, expected 1 or more", o.n_pages);
  return o;
}

}  // namespace

Result<Batch> Batch::create(const Model& model, const BatchOptions& options) {
  const ModelImpl& impl = *model.impl();
  const ModelConfig& config = impl.config;
  try {
    Batch batch(model);
    BN_ASSIGN_OR_RETURN(batch.options_, resolve(options, impl));
    const BatchOptions& o = batch.options_;
    BN_ASSIGN_OR_RETURN(batch.kv_,
                        KvCache::create(*impl.backend, config, cache_dtype(o.kv_type), o.n_pages * kPagePositions));
    StreamOptions stream;
    stream.max_tokens = o.max_tokens;
    stream.max_cols = std::max({config.d_model, config.d_ff, config.n_heads * config.head_dim});
    stream.n_ctx = o.n_ctx;
    stream.n_heads = config.n_heads;
    stream.max_parts = o.max_sequences;
    stream.fused = impl.fused.get();
    BN_ASSIGN_OR_RETURN(batch.stream_, impl.backend->new_stream(stream));
    BN_ASSIGN_OR_RETURN(batch.rope_, make_rope_tables(*impl.backend, config, o.n_ctx));
    batch.sequences_.resize(size_t(o.max_sequences));
    for (Sequence& sequence : batch.sequences_) sequence.pages.reserve(size_t(pages_of(o.n_ctx)));
    batch.free_pages_.reserve(size_t(o.n_pages));
    for (int64_t page = o.n_pages; page-- > 0;) batch.free_pages_.push_back(int32_t(page));
    batch.parts_.reserve(size_t(o.max_sequences));
    return batch;
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kResource, "no memory for a batch of {} sequences", options.max_sequences);
  }
}

Result<int32_t> Batch::open() {
  for (size_t i = 0; i < sequences_.size(); ++i) {
    if (sequences_[i].open) continue;
    sequences_[i].open = true;
    return int32_t(i);
  }
  return make_error(ErrorCode::kResource, "all {} sequences of the batch are taken", sequences_.size());
}

void Batch::close(int32_t sequence) {
  Sequence& s = sequences_[size_t(sequence)];
  free_pages_.insert(free_pages_.end(), s.pages.begin(), s.pages.end());
  s.pages.clear();
  s.n_past = 0;
  s.open = false;
}

Status Batch::check(std::span<const Part> parts) const {
  int64_t n_tokens = 0, n_pages = 0;
  std::vector<bool> seen(sequences_.size());
  for (const Part& part : parts) {
    if (part.sequence < 0 || size_t(part.sequence) >= sequences_.size() || !sequences_[size_t(part.sequence)].open) {
      return invalid_argument("the batch has no sequence {}", part.sequence);
    }
    if (seen[size_t(part.sequence)]) return invalid_argument("sequence {} is twice in one step", part.sequence);
    seen[size_t(part.sequence)] = true;
    if (part.ids.empty()) return invalid_argument("sequence {} gets no tokens in a step that has it", part.sequence);
    const Sequence& s = sequences_[size_t(part.sequence)];
    for (const int32_t id : part.ids) {
      if (id < 0 || id >= model_.info().vocab_size) {
        return invalid_argument("token id {} is outside the vocabulary of {} tokens", id, model_.info().vocab_size);
      }
    }
    const int64_t n = int64_t(part.ids.size());
    if (s.n_past + n > options_.n_ctx) {
      return make_error(ErrorCode::kResource, "{} tokens do not fit: sequence {} has {} positions, {} of them taken", n,
                        part.sequence, options_.n_ctx, s.n_past);
    }
    n_tokens += n;
    n_pages += pages_of(s.n_past + n) - int64_t(s.pages.size());
  }
  if (n_tokens > options_.max_tokens) {
    return invalid_argument("{} tokens in a step of at most {}", n_tokens, options_.max_tokens);
  }
  if (n_pages > n_free_pages()) {
    return make_error(ErrorCode::kResource, "the step wants {} more pages of the cache, {} are free", n_pages,
                      n_free_pages());
  }
  return ok();
}

template <class Run>
Status Batch::run(std::span<const Part> parts, const Run& run) {
  BN_RETURN_IF_ERROR(check(parts));
  if (parts.empty()) return ok();
  parts_.clear();
  for (const Part& part : parts) {
    Sequence& s = sequences_[size_t(part.sequence)];
    const int64_t wanted = pages_of(s.n_past + int64_t(part.ids.size()));
    while (int64_t(s.pages.size()) < wanted) {
      s.pages.push_back(free_pages_.back());
      free_pages_.pop_back();
    }
    parts_.push_back({kv_.layers(), part.ids, s.n_past, s.pages});
  }
  BN_RETURN_IF_ERROR(run());
  for (const Part& part : parts) sequences_[size_t(part.sequence)].n_past += int64_t(part.ids.size());
  return ok();
}

Status Batch::step(std::span<const Part> parts, std::span<BestToken> best) {
  BN_RETURN_IF_ERROR(run(parts, [&] { return model_.impl()->fused->step_best(*stream_, parts_, rope_.view, best); }));
  for (size_t i = 0; i < parts.size(); ++i) {
    if (std::isfinite(best[i].logit)) continue;
    return invalid_input("{}: the logits of sequence {} are not finite: the weights' sizes do not fit together",
                         model_.info().path, parts[i].sequence);
  }
  return ok();
}

Status Batch::step(std::span<const Part> parts, int64_t n_best, MatrixView logits) {
  return run(parts, [&] { return model_.impl()->fused->step(*stream_, parts_, rope_.view, n_best, logits); });
}

}  // namespace bitnet
