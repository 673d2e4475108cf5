#include "kernels/cpu/sparse_product.h"

#include "kernels/cpu/shares.h"

#include <algorithm>
#include <cstring>

namespace bitnet {
namespace {

// Each share means another look at the list, so there are few.
int64_t least_share(CpuStream& stream, int64_t n) { return n / (8 * stream.pool().n_threads()) + 1; }

// One thread's part of a product: list(begin, end) appends what matters of the candidates that the thread takes, and
// work(n, n_whole) does the first n of the list, filled up to n_whole. A list's last pieces wait for more, so that
// fetching ahead never runs dry between shares.
template <class List, class Work>
void work_through(Shares& shares, SparseLists& lists, const CpuTernaryMatrix& weight, const List& list,
                  const Work& work) {
  lists.n = 0;
  shares.take([&](int64_t begin, int64_t end) {
    for (; begin < end; begin += SparseLists::kAtOnce) {
      const bool empty = lists.n == 0;
      list(begin, std::min(begin + SparseLists::kAtOnce, end));
      if (empty) lists.prefetch_first(weight.piece(0), weight.piece_bytes());
      const int64_t n_ready = (lists.n - kPiecesAhead) / 4 * 4;
      if (n_ready <= 0) continue;
      work(n_ready, n_ready);
      lists.drop(n_ready);
    }
  });
  if (lists.n > 0) work(lists.n, lists.fill_up());
}

}  // namespace

void spread_token(const int8_t* q, int64_t stride, Packing packing, int64_t row_bytes, int8_t* out) {
  const int64_t n_fields = packing.n_fields();
  for (int64_t word = 0; word < row_bytes / 4; ++word) {
    int8_t* const lane = out + word / 16 * n_fields * kVectorBytes + word % 16 * 4;
    for (int64_t j = 0; j < n_fields; ++j) {
      const int64_t col = (word * n_fields + j) * 4;
      if (col < stride) {
        std::memcpy(lane + j * kVectorBytes, q + col, 4);
      } else {
        std::memset(lane + j * kVectorBytes, 0, 4);
      }
    }
  }
}

void multiply_rows(const CpuKernels& kernels, CpuStream& stream, const LinearCall& call, const QuantizedView& x,
                   int64_t token) {
  const auto& weight = static_cast<const CpuTernaryMatrix&>(*call.weight);
  const auto dot_rows = weight.packing().of(kernels).dot_rows;
  const float* const wanted = call.wanted.data == nullptr ? nullptr : call.wanted.row(token);
  float* const out = call.out.row(token);
  Shares shares(stream, weight.n_rows(), least_share(stream, weight.n_rows()));
  stream.pool().run([&](int thread) {
    int8_t* const spread = stream.spread(thread);
    spread_token(x.codes + token * x.stride, x.stride, weight.packing(), weight.piece_bytes(), spread);
    SparseLists& lists = stream.lists(thread);
    int64_t n_read = 0;
    const auto list = [&](int64_t begin, int64_t end) {
      int64_t n = lists.n;
      for (int64_t row = begin; row < end; ++row) {
        lists.ids[n] = int32_t(row);
        n += int64_t(wanted == nullptr || wanted[row] > 0.0f);
      }
      lists.n = n;
    };
    const auto work = [&](int64_t n, int64_t n_whole) {
      dot_rows({weight.piece(0), weight.piece_bytes(), lists.ids, n_whole, spread, lists.sums});
      kernels.scale_sums(lists.sums, n, x.sums[token], x.inv_scales[token], weight.scales().tensor, lists.outputs);
      for (int64_t i = 0; i < n; ++i) out[lists.ids[i]] = lists.outputs[i];
      n_read += n;
    };
    work_through(shares, lists, weight, list, work);
    stream.count_weight_bytes(n_read * weight.piece_bytes());
  });
}

void multiply_columns(const CpuKernels& kernels, CpuStream& stream, const LinearCall& call, const QuantizedView& x,
                      int64_t token) {
  const auto& weight = static_cast<const CpuTernaryMatrix&>(*call.weight);
  const int8_t* const q = x.codes + token * x.stride;
  const auto add_columns = weight.packing().of(kernels).add_columns;
  const int64_t n_sums = weight.packing().n_fields() * weight.piece_bytes();  // rows in whole vectors
  Shares shares(stream, x.n_cols, least_share(stream, x.n_cols));
  stream.pool().run([&](int thread) {
    int32_t* const sums = stream.column_sums(thread);
    std::memset(sums, 0, size_t(n_sums) * sizeof(int32_t));
    SparseLists& lists = stream.lists(thread);
    int64_t n_read = 0;
    const auto list = [&](int64_t begin, int64_t end) {
      int64_t n = lists.n;
      for (int64_t col = begin; col < end; ++col) {
        lists.ids[n] = int32_t(col);
        lists.inputs[n] = q[col];
        n += int64_t(q[col] != 0);
      }
      lists.n = n;
    };
    const auto work = [&](int64_t n, int64_t n_whole) {
      for (int64_t i = 0; i < n_whole; i += kColumnsAtOnce) {
        add_columns({weight.piece(0), weight.piece_bytes(), lists.ids + i, lists.inputs + i,
                     std::min(kColumnsAtOnce, n_whole - i), sums});
      }
      n_read += n;
    };
    work_through(shares, lists, weight, list, work);
    stream.count_weight_bytes(n_read * weight.piece_bytes());
  });
  // All threads add up their sums: with many, one alone would wait for all the others' caches.
  constexpr int64_t kRowsAtOnce = 64;
  int32_t* const total = stream.column_sums(0);
  stream.pool().parallel_for((weight.n_rows() + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kRowsAtOnce, last = std::min(end * kRowsAtOnce, weight.n_rows());
    for (int thread = 1; thread < stream.pool().n_threads(); ++thread) {
      const int32_t* const sums = stream.column_sums(thread);
      for (int64_t i = first; i < last; ++i) total[i] += sums[i];
    }
    kernels.scale_sums(total + first, last - first, x.sums[token], x.inv_scales[token], weight.scales().tensor,
                       call.out.row(token) + first);
  });
}

}  // namespace bitnet
