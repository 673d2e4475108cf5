#pragma once

#include "base/thread_pool.h"
#include "kernels/cpu/kernel_table.h"
#include "memory/pool_vector.h"
#include "train/core/rows.h"

#include <cstdint>
#include <vector>

namespace bitnet {

// The gradient of causal attention with grouped queries: probabilities are computed again, for kQueriesAtOnce queries
// of a head at a time. Sequences and key/value heads are shared among the threads; results do not depend on how.
class AttentionGradient {
 public:
  AttentionGradient(ThreadPool& pool, const CpuKernels& kernels) : pool_(pool), kernels_(kernels) {}

  // q, out, dout, dq [n_tokens, n_heads * head_dim]; k, v, dk, dv [n_tokens, n_kv_heads * head_dim], all written.
  void run(const AttentionShape& shape, Rows<float> q, Rows<float> k, Rows<float> v, Rows<float> out, Rows<float> dout,
           Rows<float> dq, Rows<float> dk, Rows<float> dv);

 private:
  static constexpr int64_t kQueriesAtOnce = 4 * kProductRows;

  // One head's matrices, padded with zeros to whole tiles: [n_rows, width], and turned [width, n_rows].
  struct Scratch {
    PoolVector<float> q, q_turned, k, k_turned, v_turned, dout, dout_turned, dk, dv;
    PoolVector<float> p, ds;      // [kQueriesAtOnce, n_rows]
    PoolVector<float> ds_turned;  // [n_rows, kQueriesAtOnce]
  };
  struct Call;
  void head(const Call& call, int64_t first_token, int64_t query_head, Scratch& s) const;
  void queries(const Call& call, int64_t first_token, int64_t query_head, int64_t begin, Scratch& s) const;

  ThreadPool& pool_;
  const CpuKernels& kernels_;
  std::vector<Scratch> scratch_;
};

}  // namespace bitnet
