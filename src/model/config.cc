#include "model/config.h"

#include <cmath>

namespace bitnet {
namespace {

// Far above any published model, and low enough that no product of two of them, times the layers, wraps 64 bits and
// no int32 sum of int8 products over a row overflows (2^20 columns * 2 * 128 < 2^31).
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxHeads = int64_t{1} << 14;
constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 30;

Status check_size(const std::string& file, const char* what, int64_t value, int64_t max) {
  if (value >= 1 && value <= max) return ok();
  return invalid_input("{}: the {} is {}, expected 1 to {}", file, what, value, max);
}

}  // namespace

Status check_config(const ModelConfig& c, const std::string& file) {
  BN_RETURN_IF_ERROR(check_size(file, "number of layers", c.n_layers, kMaxLayers));
  BN_RETURN_IF_ERROR(check_size(file, "embedding width (d_model)", c.d_model, kMaxWidth));
  BN_RETURN_IF_ERROR(check_size(file, "feed-forward width (d_ff)", c.d_ff, kMaxWidth));
  BN_RETURN_IF_ERROR(check_size(file, "number of attention heads", c.n_heads, kMaxHeads));
  BN_RETURN_IF_ERROR(check_size(file, "number of key/value heads", c.n_kv_heads, kMaxHeads));
  BN_RETURN_IF_ERROR(check_size(file, "head dimension", c.head_dim, kMaxWidth));
  BN_RETURN_IF_ERROR(
      check_size(file, "attention width (heads times head dimension)", c.n_heads * c.head_dim, kMaxWidth));
  BN_RETURN_IF_ERROR(check_size(file, "vocabulary size", c.vocab_size, kMaxVocabulary));
  BN_RETURN_IF_ERROR(check_size(file, "context length", c.n_ctx_train, kMaxContext));
  if (c.n_heads % c.n_kv_heads != 0) {
    return invalid_input("{}: {} attention heads cannot share {} key/value heads evenly", file, c.n_heads,
                         c.n_kv_heads);
  }
  if (c.head_dim % 2 != 0) {
    return invalid_input("{}: the head dimension is {}, expected an even number: rotary embeddings turn pairs", file,
                         c.head_dim);
  }
  if (c.rope_dim < 2 || c.rope_dim > c.head_dim || c.rope_dim % 2 != 0) {
    return invalid_input("{}: {} of a head's {} dimensions rotate, expected an even number of them", file, c.rope_dim,
                         c.head_dim);
  }
  if (!std::isfinite(c.rope_theta) || c.rope_theta <= 0) {
    return invalid_input("{}: the rotary base is {}, expected a finite positive number", file, c.rope_theta);
  }
  if (!std::isfinite(c.rms_eps) || c.rms_eps <= 0) {
    return invalid_input("{}: the RMSNorm epsilon is {}, expected a finite positive number", file, c.rms_eps);
  }
  if (c.input_norms && (!std::isfinite(c.input_norm_eps) || c.input_norm_eps <= 0)) {
    return invalid_input("{}: the input norms' epsilon is {}, expected a finite positive number", file,
                         c.input_norm_eps);
  }
  return ok();
}

}  // namespace bitnet
