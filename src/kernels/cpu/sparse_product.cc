#include "kernels/cpu/sparse_product.h"

#include "base/checked.h"
#include "kernels/cpu/shares.h"

#include <algorithm>
#include <cstring>

namespace bitnet {
namespace {

// Each share begins without anything fetched, so there are few.
int64_t least_share(CpuStream& stream, int64_t n) { return n / (8 * stream.pool().n_threads()) + 1; }

// A token's codes in the order in which rows meet them, zeros behind.
void spread_token(const int8_t* q, int64_t stride, int64_t row_bytes, int8_t* out) {
  for (int64_t word = 0; word < row_bytes / 4; ++word) {
    int8_t* const lane = out + word / 16 * 4 * kVectorBytes + word % 16 * 4;
    for (int64_t j = 0; j < 4; ++j) {
      const int64_t col = word * kBlockCols + 4 * j;
      if (col < stride) {
        std::memcpy(lane + j * kVectorBytes, q + col, 4);
      } else {
        std::memset(lane + j * kVectorBytes, 0, 4);
      }
    }
  }
}

// Fills a list of n > 0 ids up to whole groups of four, whose length it returns, and beyond, with its last one.
int64_t fill_up(SparseLists& lists, int64_t n) {
  const int64_t n_whole = round_up(n, 4);
  std::fill(lists.ids + n, lists.ids + n_whole + kPiecesAhead, lists.ids[n - 1]);
  return n_whole;
}

// The rows of [begin, end) whose counterpart in `wanted` is positive, or all of them.
int64_t list_rows(const float* wanted, int64_t begin, int64_t end, SparseLists& lists) {
  int64_t n = 0;
  for (int64_t row = begin; row < end; ++row) {
    lists.ids[n] = int32_t(row);
    n += int64_t(wanted == nullptr || wanted[row] > 0.0f);
  }
  return n;
}

// The columns of [begin, end) whose input is not zero, and the inputs.
int64_t list_columns(const int8_t* q, int64_t begin, int64_t end, SparseLists& lists) {
  int64_t n = 0;
  for (int64_t col = begin; col < end; ++col) {
    lists.ids[n] = int32_t(col);
    lists.inputs[n] = q[col];
    n += int64_t(q[col] != 0);
  }
  return n;
}

// Adds the columns of a list.
void add_listed(const CpuKernels& kernels, const CpuTernaryMatrix& weight, SparseLists& lists, int64_t n,
                int32_t* sums) {
  std::memset(lists.inputs + n, 0, 4);
  const int64_t n_whole = fill_up(lists, n);
  for (int64_t i = 0; i < std::min(n, kPiecesAhead); ++i) {  // which no earlier one has fetched
    const uint8_t* const column = weight.piece(lists.ids[i]);
    for (int64_t at = 0; at < weight.piece_bytes(); at += kVectorBytes) __builtin_prefetch(column + at);
  }
  for (int64_t i = 0; i < n_whole; i += kColumnsAtOnce) {
    kernels.add_columns({weight.piece(0), weight.piece_bytes(), lists.ids + i, lists.inputs + i,
                         std::min(kColumnsAtOnce, n_whole - i), sums});
  }
}

}  // namespace

void multiply_rows(const CpuKernels& kernels, CpuStream& stream, const LinearCall& call, const QuantizedView& x,
                   int64_t first_token) {
  const auto& weight = static_cast<const CpuTernaryMatrix&>(*call.weight);
  for (int64_t t = first_token; t < x.n_rows; ++t) {
    const float* const wanted = call.wanted.data == nullptr ? nullptr : call.wanted.row(t);
    float* const out = call.out.row(t);
    Shares shares(stream, weight.n_rows(), least_share(stream, weight.n_rows()));
    stream.pool().run([&](int thread) {
      int8_t* const spread = stream.spread(thread);
      spread_token(x.codes + t * x.stride, x.stride, weight.piece_bytes(), spread);
      SparseLists& lists = stream.lists(thread);
      int64_t n_read = 0;
      shares.take([&](int64_t begin, int64_t end) {
        for (; begin < end; begin += SparseLists::kAtOnce) {
          const int64_t n = list_rows(wanted, begin, std::min(begin + SparseLists::kAtOnce, end), lists);
          if (n == 0) continue;
          kernels.dot_rows({weight.piece(0), weight.piece_bytes(), lists.ids, fill_up(lists, n), spread, lists.sums});
          kernels.scale_sums(lists.sums, n, x.sums[t], x.inv_scales[t], weight.scales().tensor, lists.outputs);
          for (int64_t i = 0; i < n; ++i) out[lists.ids[i]] = lists.outputs[i];
          n_read += n;
        }
      });
      stream.count_weight_bytes(n_read * weight.piece_bytes());
    });
  }
}

void multiply_columns(const CpuKernels& kernels, CpuStream& stream, const LinearCall& call, const QuantizedView& x,
                      int64_t first_token) {
  const auto& weight = static_cast<const CpuTernaryMatrix&>(*call.weight);
  const int64_t n_sums = 4 * weight.piece_bytes();  // of a token: rows in whole vectors
  for (int64_t first = first_token; first < x.n_rows; first += kColumnTokens) {
    const int64_t n_tokens = std::min(kColumnTokens, x.n_rows - first);
    Shares shares(stream, x.n_cols, least_share(stream, x.n_cols));
    stream.pool().run([&](int thread) {
      int32_t* const sums = stream.column_sums(thread);
      std::memset(sums, 0, size_t(n_tokens * n_sums) * sizeof(int32_t));
      SparseLists& lists = stream.lists(thread);
      int64_t n_read = 0;
      shares.take([&](int64_t begin, int64_t end) {
        for (; begin < end; begin += SparseLists::kAtOnce) {
          for (int64_t t = 0; t < n_tokens; ++t) {
            const int8_t* const q = x.codes + (first + t) * x.stride;
            const int64_t n = list_columns(q, begin, std::min(begin + SparseLists::kAtOnce, end), lists);
            if (n > 0) add_listed(kernels, weight, lists, n, sums + t * n_sums);
            n_read += n;
          }
        }
      });
      stream.count_weight_bytes(n_read * weight.piece_bytes());
    });
    int32_t* const total = stream.column_sums(0);
    for (int thread = 1; thread < stream.pool().n_threads(); ++thread) {
      const int32_t* const sums = stream.column_sums(thread);
      for (int64_t i = 0; i < n_tokens * n_sums; ++i) total[i] += sums[i];
    }
    for (int64_t t = 0; t < n_tokens; ++t) {
      kernels.scale_sums(total + t * n_sums, weight.n_rows(), x.sums[first + t], x.inv_scales[first + t],
                         weight.scales().tensor, call.out.row(first + t));
    }
  }
}

}  // namespace bitnet
