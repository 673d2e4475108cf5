#pragma once

#include "kernels/backend.h"

#include <cstdint>
#include <vector>

namespace bitnet {

// For measurements with random weights: gives the feed-forward layers the sparsity of a trained model. Which neurons
// are active is drawn from a seed, anew for each layer and position, so that no cache can hold the active ones.
class ImposedDensities {
 public:
  // Shares of all neurons: of gates that are positive, and of inputs of down whose code is not zero; 0 < down <= gate
  // <= 1.
  ImposedDensities(double gate, double down, int64_t d_ff, uint64_t seed);
  // Sets the signs of gates [n_tokens, d_ff].
  void impose_on_gates(MatrixView gates, int64_t layer, int64_t first_position) const;
  // Sets codes [n_tokens, d_ff] to zero, or to one where they are zero and should not be.
  void impose_on_codes(QuantizedView x, int64_t layer, int64_t first_position) const;

 private:
  int64_t offset(int64_t layer, int64_t position) const;

  uint64_t seed_;
  int64_t d_ff_;
  // Twice in a row, so that any offset below d_ff leaves d_ff of them.
  std::vector<uint32_t> signs_;  // the sign bit
  std::vector<int8_t> kept_;     // 1 or 0
};

}  // namespace bitnet
