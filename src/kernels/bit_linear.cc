#include "kernels/bit_linear.h"

#include "kernels/cpu/dispatch.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace bitnet {

Result<BitLinear> BitLinear::create(const TernaryView& weights, const TernaryScales* apart,
                                    const BitLinearOptions& options) {
  BN_RETURN_IF_ERROR(check_ternary_view(weights));
  TernaryScales scales;
  if (ternary_layout_info(weights.layout).scales != ScaleKind::kApart) {
    BN_ASSIGN_OR_RETURN(scales, ternary_scales(weights));
  } else if (apart != nullptr) {
    scales = *apart;
  }
  std::vector<uint8_t> codes(size_t(weights.n_rows * weights.n_cols));
  BN_RETURN_IF_ERROR(decode_ternary(weights, 0, weights.n_rows, codes.data(), cpu_ternary_codecs()));
  return create(weights.n_rows, weights.n_cols, std::move(codes), scales, options);
}

Result<BitLinear> BitLinear::create(int64_t d_out, int64_t d_in, std::vector<uint8_t> codes,
                                    const TernaryScales& scales, const BitLinearOptions& options) {
  if (d_out < 1 || d_in < 1 || uint64_t(d_out) != codes.size() / uint64_t(d_in) || codes.size() % uint64_t(d_in) != 0) {
    return invalid_argument("{} codes for a layer of [{}, {}]", codes.size(), d_out, d_in);
  }
  if (options.max_tokens < 1) return invalid_argument("max_tokens is {}, expected 1 or more", options.max_tokens);
  BitLinear layer;
  BN_ASSIGN_OR_RETURN(layer.backend_, make_backend(options.device));
  if (!layer.backend_->host_memory()) {
    return unsupported("a layer by itself runs in the host's memory, which {} does not", options.device);
  }
  StreamOptions stream;
  stream.n_threads = options.n_threads > 0 ? options.n_threads : available_cpus();
  stream.max_tokens = layer.max_tokens_ = options.max_tokens;
  stream.max_cols = std::max(d_in, d_out);
  BN_ASSIGN_OR_RETURN(layer.stream_, layer.backend_->new_stream(stream));
  TernarySource source;
  source.n_rows = d_out;
  source.n_cols = d_in;
  source.scales = scales;
  source.read_codes = [&codes, d_in](int64_t row, int64_t n_rows, uint8_t* out) -> Status {
    std::memcpy(out, codes.data() + row * d_in, size_t(n_rows * d_in));
    return ok();
  };
  BN_ASSIGN_OR_RETURN(layer.matrix_, layer.backend_->prepare(source, layer.stream_->pool()));
  layer.codes_.resize(size_t(options.max_tokens * quantized_stride(d_in)));
  layer.inv_scales_.resize(size_t(options.max_tokens));
  layer.sums_.resize(size_t(options.max_tokens));
  return layer;
}

Status BitLinear::forward(MatrixView x, MatrixView y) {
  if (x.n_cols != d_in() || y.n_cols != d_out() || x.n_rows != y.n_rows) {
    return invalid_argument("a layer of [{}, {}] got [{}, {}] and [{}, {}]", d_out(), d_in(), x.n_rows, x.n_cols,
                            y.n_rows, y.n_cols);
  }
  for (int64_t at = 0; at < x.n_rows; at += max_tokens_) {
    const int64_t n = std::min(max_tokens_, x.n_rows - at);
    const QuantizedView quantized = {codes_.data(), inv_scales_.data(),      sums_.data(), n,
                                     d_in(),        quantized_stride(d_in())};
    backend_->quantize(*stream_, {x.row(at), n, d_in()}, quantized);
    const LinearCall call = {matrix_.get(), {y.row(at), n, d_out()}};
    backend_->linear(*stream_, {&call, 1}, quantized);
  }
  return ok();
}

}  // namespace bitnet
