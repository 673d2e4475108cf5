#pragma once

#include "kernels/backend.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace bitnet {

struct BitLinearOptions {
  std::string device = "cpu";  // or "reference"
  int n_threads = 0;           // 0: all processors
  int64_t max_tokens = 512;    // that are computed together; more go in parts
};

// A BitLinear layer by itself, for inference: y = W x with ternary W [d_out, d_in] and activations quantised to int8
// for each token (docs/numerics.md 1 to 3). A model's layers are the same operations of the same back end
// (model/forward.cc). Its training form is in train/bit_linear_training.h. One caller at a time.
class BitLinear {
 public:
  // Weights in any packed layout, read once; `apart` holds the scales of one that carries none, null for a scale of 1.
  // Refuses what decode_ternary and ternary_scales do, and devices whose memory is not the host's.
  static Result<BitLinear> create(const TernaryView& weights, const TernaryScales* apart = nullptr,
                                  const BitLinearOptions& options = {});
  // Codes w + 1 [d_out, d_in].
  static Result<BitLinear> create(int64_t d_out, int64_t d_in, std::vector<uint8_t> codes, const TernaryScales& scales,
                                  const BitLinearOptions& options = {});

  int64_t d_in() const { return matrix_->n_cols(); }
  int64_t d_out() const { return matrix_->n_rows(); }
  size_t size_bytes() const { return matrix_->size_bytes(); }  // of the prepared weights

  // x [n_tokens, d_in] to y [n_tokens, d_out]. Takes no memory.
  Status forward(MatrixView x, MatrixView y);

 private:
  BitLinear() = default;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Matrix> matrix_;
  int64_t max_tokens_ = 0;
  std::vector<int8_t> codes_;  // of the tokens at work: [max_tokens, stride]
  std::vector<float> inv_scales_;
  std::vector<int32_t> sums_;
};

}  // namespace bitnet
