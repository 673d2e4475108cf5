#pragma once

#include "kernels/cuda/collectives.h"
#include "kernels/cuda/row_shares.h"

namespace bitnet {

// One of several GPUs that compute a model's steps together. Each has some rows of every matrix and some heads'
// caches; what it computes of a row of activations the others get, so that each quantises whole rows.
struct GroupRank {
  int rank = 0;
  const Collectives* collectives = nullptr;
  std::vector<RowShare> q, model, ff,
      ids;  // every rank's: of attention's outputs, of d_model, of d_ff, of the embedding
};

}  // namespace bitnet
