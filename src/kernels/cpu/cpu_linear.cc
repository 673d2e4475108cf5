#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_matrix.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/shares.h"
#include "kernels/cpu/sparse_product.h"

#include <algorithm>
#include <cstring>

namespace bitnet {
namespace {

int64_t n_units(const Matrix& weight, int64_t unit_rows) { return (weight.n_rows() + unit_rows - 1) / unit_rows; }

// Hands out all rows of all calls in units of `unit_rows` rows, every call having the same columns.
// fn(call, first_unit, end_unit, thread) for each call that a share touches.
template <class Fn>
void parallel_units(CpuStream& stream, std::span<const LinearCall> calls, int64_t unit_rows, const Fn& fn) {
  int64_t total = 0;
  for (const LinearCall& call : calls) total += n_units(*call.weight, unit_rows);
  parallel_shares(stream, total, [&](int64_t begin, int64_t end, int thread) {
    int64_t first = 0;
    for (const LinearCall& call : calls) {
      const int64_t n = n_units(*call.weight, unit_rows);
      const int64_t from = std::max(begin, first) - first, to = std::min(end, first + n) - first;
      if (from < to) fn(call, from, to, thread);
      first += n;
    }
  });
}

// The products of tokens with one matrix: `n_packed` of them in groups of matmul_tokens, the rest one by one.
class TernaryProduct {
 public:
  TernaryProduct(const CpuKernels& kernels, CpuStream& stream, const QuantizedView& x)
      : kernels_(kernels), stream_(stream), x_(x) {
    if (kernels.matmul.matmul_tile == nullptr) return;
    const int64_t rest = x.n_rows % kernels.matmul.n_tokens;
    n_packed_ = x.n_rows - (rest < kernels.matmul.min_tokens ? rest : 0);
    n_groups_ = (n_packed_ + kernels.matmul.n_tokens - 1) / kernels.matmul.n_tokens;
  }

  int64_t n_groups() const { return n_groups_; }

  void pack_group(int64_t group) const {
    const int64_t first = group * kernels_.matmul.n_tokens;
    const int64_t n = std::min(kernels_.matmul.n_tokens, n_packed_ - first);
    kernels_.matmul.pack_tokens(x_.codes + first * x_.stride, x_.stride, n, x_.stride / kBlockCols, packed(group));
  }

  // How many tokens meet a matrix tile by tile in tiles(); those after them go through sparse_product.h.
  int64_t n_in_tiles(const CpuTernaryMatrix& weight) const {
    if (weight.use() == TernaryUse::kWhole) return x_.n_rows;
    // Rows become tiles by copying, so that tokens together read all of them sooner than each its own.
    if (weight.use() == TernaryUse::kSomeRows) return n_packed_;
    return x_.n_rows <= kFewTokens ? 0 : n_packed_;
  }

  // Of one thread: tiles [begin, end).
  void tiles(const LinearCall& call, int64_t begin, int64_t end, int thread) const {
    const auto& weight = static_cast<const CpuTernaryMatrix&>(*call.weight);
    if (weight.n_groups() > 0) {
      for (int64_t i = begin; i < end; ++i) grouped_tile(call, weight, i, thread);
      return;
    }
    if (n_in_tiles(weight) == 0) return;
    if (n_packed_ > 0) {
      for (int64_t i = begin; i < end; i += kTilesAtOnce) {
        matmul_tiles(call, weight, i, std::min(kTilesAtOnce, end - i), thread);
      }
    }
    if (weight.use() != TernaryUse::kWhole || n_packed_ == x_.n_rows) return;
    stream_.count_weight_bytes((end - begin) * weight.piece_bytes());
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t t = n_packed_; t < x_.n_rows; ++t) {
        matvec_tile(weight, i, x_.codes + t * x_.stride, stream_.sums(thread));
        finish(call, weight, i, t, stream_.sums(thread));
      }
    }
  }

 private:
  // Tokens are packed with the columns of whole strides, whatever the blocks of a weight.
  int8_t* packed(int64_t group) const { return stream_.packed_tokens() + group * kernels_.matmul.n_tokens * x_.stride; }

  void matvec_tile(const CpuTernaryMatrix& weight, int64_t tile, const int8_t* q, int32_t* sums) const {
    weight.packing().of(kernels_).matvec_tile(weight.piece(tile), weight.n_blocks(), q, sums);
  }

  void finish(const LinearCall& call, const CpuTernaryMatrix& weight, int64_t tile, int64_t t,
              const int32_t* sums) const {
    kernels_.scale_sums(sums, weight.rows_in_tile(tile), x_.sums[t], x_.inv_scales[t], weight.scales().tensor,
                        call.out.row(t) + tile * kTileRows);
  }

  void matmul_tiles(const LinearCall& call, const CpuTernaryMatrix& weight, int64_t first, int64_t n,
                    int thread) const {
    const int64_t codes_bytes = weight.n_code_blocks() * kBlockCols * kTileRows;
    uint8_t* const codes = stream_.codes(thread);
    for (int64_t i = 0; i < n; ++i) {
      weight.packing().unpack_tile(kernels_, weight.tile(first + i, stream_.tile(thread)), weight.n_cols(),
                                   codes + i * codes_bytes);
    }
    stream_.count_weight_bytes(n * weight.n_blocks() * kBlockBytes);
    for (int64_t group = 0; group < n_groups(); ++group) {
      const int64_t token = group * kernels_.matmul.n_tokens;
      const int64_t n_tokens = std::min(kernels_.matmul.n_tokens, n_packed_ - token);
      for (int64_t i = 0; i < n; ++i) {
        kernels_.matmul.matmul_tile(codes + i * codes_bytes, packed(group), weight.n_code_blocks(), n_tokens,
                                    stream_.sums(thread));
        for (int64_t t = 0; t < n_tokens; ++t) {
          finish(call, weight, first + i, token + t, stream_.sums(thread) + t * kTileRows);
        }
      }
    }
  }

  // Scales for groups of columns: exact integers within a group, floats in the order of the groups.
  void grouped_tile(const LinearCall& call, const CpuTernaryMatrix& weight, int64_t tile, int thread) const {
    stream_.count_weight_bytes(weight.piece_bytes());
    const int64_t group_blocks = weight.scales().group_cols / kBlockCols, n_rows = weight.rows_in_tile(tile);
    int32_t* const sums = stream_.sums(thread);
    for (int64_t t = 0; t < x_.n_rows; ++t) {
      float total[kTileRows] = {};
      for (int64_t g = 0; g < weight.n_groups(); ++g) {
        const int64_t block = g * group_blocks;
        const int8_t* const q = x_.codes + t * x_.stride + block * kBlockCols;
        int32_t q_sum = 0;
        for (int64_t i = 0; i < group_blocks * kBlockCols; ++i) q_sum += q[i];
        kernels_.fields.matvec_tile(weight.piece(tile) + block * kBlockBytes, group_blocks, q, sums);
        for (int64_t r = 0; r < n_rows; ++r) {
          const float part = float(sums[r] - q_sum) * weight.group_scales(tile * kTileRows + r)[g];
          total[r] = g == 0 ? part : total[r] + part;
        }
      }
      float* const out = call.out.row(t) + tile * kTileRows;
      for (int64_t r = 0; r < n_rows; ++r) out[r] = total[r] * x_.inv_scales[t];
    }
  }

  const CpuKernels& kernels_;
  CpuStream& stream_;
  const QuantizedView& x_;
  int64_t n_packed_ = 0;
  int64_t n_groups_ = 0;
};

void float_rows(const CpuKernels& kernels, const LinearCall& call, MatrixView x, int64_t begin, int64_t end) {
  const auto& weight = static_cast<const CpuFloatMatrix&>(*call.weight);
  kernels.dot[weight.type_index()]({.rows = weight.row(begin),
                                    .row_bytes = weight.row_bytes(),
                                    .n_rows = end - begin,
                                    .x = x.data,
                                    .x_stride = x.n_cols,
                                    .n_x = x.n_rows,
                                    .n_cols = x.n_cols,
                                    .out = call.out.data + begin,
                                    .out_stride = call.out.n_cols});
}

// Ternary weights with float activations: rows widened to float32 first.
void ternary_rows(const CpuKernels& kernels, const LinearCall& call, MatrixView x, int64_t begin, int64_t end,
                  float* rows) {
  const auto& weight = static_cast<const CpuTernaryMatrix&>(*call.weight);
  for (int64_t row = begin; row < end; ++row) weight.widen_row(row, rows + (row - begin) * x.n_cols);
  kernels.dot[size_t(WeightType::kF32)]({.rows = reinterpret_cast<const uint8_t*>(rows),
                                         .row_bytes = x.n_cols * int64_t{sizeof(float)},
                                         .n_rows = end - begin,
                                         .x = x.data,
                                         .x_stride = x.n_cols,
                                         .n_x = x.n_rows,
                                         .n_cols = x.n_cols,
                                         .out = call.out.data + begin,
                                         .out_stride = call.out.n_cols});
  if (weight.n_groups() > 0) return;
  for (int64_t t = 0; t < x.n_rows; ++t) kernels.scale(call.out.row(t) + begin, end - begin, weight.scales().tensor);
}

}  // namespace

void CpuBackend::linear(Stream& stream, std::span<const LinearCall> calls, const QuantizedView& x) const {
  auto& cpu_stream = static_cast<CpuStream&>(stream);
  const TernaryProduct product(kernels_, cpu_stream, x);
  stream.pool().parallel_for(product.n_groups(), [&](int64_t begin, int64_t end, int) {
    for (int64_t group = begin; group < end; ++group) product.pack_group(group);
  });
  const auto n_in_tiles = [&](const LinearCall& call) {
    return product.n_in_tiles(static_cast<const CpuTernaryMatrix&>(*call.weight));
  };
  if (std::any_of(calls.begin(), calls.end(), [&](const LinearCall& call) { return n_in_tiles(call) > 0; })) {
    parallel_units(cpu_stream, calls, kTileRows, [&](const LinearCall& call, int64_t begin, int64_t end, int thread) {
      product.tiles(call, begin, end, thread);
    });
  }
  for (const LinearCall& call : calls) {
    const auto use = static_cast<const CpuTernaryMatrix&>(*call.weight).use();
    const auto multiply = use == TernaryUse::kSomeRows ? multiply_rows : multiply_columns;
    for (int64_t t = n_in_tiles(call); t < x.n_rows; ++t) multiply(kernels_, cpu_stream, call, x, t);
  }
}

void CpuBackend::linear(Stream& stream, std::span<const LinearCall> calls, MatrixView x) const {
  auto& cpu_stream = static_cast<CpuStream&>(stream);
  constexpr int64_t kUnitRows = CpuStream::kWideRows;
  parallel_units(cpu_stream, calls, kUnitRows, [&](const LinearCall& call, int64_t begin, int64_t end, int thread) {
    const int64_t last = std::min(end * kUnitRows, call.weight->n_rows());
    cpu_stream.count_weight_bytes(int64_t(call.weight->bytes_per_product()) * (last - begin * kUnitRows) /
                                  call.weight->n_rows());
    if (!call.weight->ternary() && x.n_rows == 1) {
      float_rows(kernels_, call, x, begin * kUnitRows, last);
      return;
    }
    for (int64_t row = begin * kUnitRows; row < last; row += kUnitRows) {
      const int64_t row_end = std::min(row + kUnitRows, last);
      if (call.weight->ternary()) {
        ternary_rows(kernels_, call, x, row, row_end, cpu_stream.wide_rows(thread));
      } else {
        float_rows(kernels_, call, x, row, row_end);
      }
    }
  });
}

}  // namespace bitnet
