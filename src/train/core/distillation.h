#pragma once

#include "train/core/rows.h"

#include <cstdint>

namespace bitnet {

// What a student learns from a teacher besides its targets (docs/training.md has the formulas).
struct DistillationOptions {
  double logits = 0;           // weight of the divergence between the distributions of the next token
  double temperature = 1;      // that both are divided by
  double attention = 0;        // weight of the divergence between the relations of one layer
  int64_t layer = 1;           // whose relations: counted from the last one of either model, which is 1
  int64_t relation_heads = 1;  // that queries, keys and values are cut into, of teacher and student alike
};

// Sums over the tokens that count.
struct DistillationLoss {
  double cross_entropy = 0;
  double logits = 0;     // KL of the distributions
  double attention = 0;  // KL of the relations, a mean over their heads, a sum of queries, keys and values
  double total(const DistillationOptions& o) const {
    return cross_entropy + o.logits * logits + o.attention * attention;
  }
};

// A teacher's last activations, normed [n_tokens, d_model], and its head [vocab_size, d_model].
template <class Real>
struct TeacherHead {
  Rows<Real> x;
  const Real* table = nullptr;
};

}  // namespace bitnet
