#include "kernels/test_support.h"

#include <atomic>
#include <cstdlib>
#include <new>

// Counts what this test program takes from the heap.
namespace {
std::atomic<int64_t> n_allocations{0};
}  // namespace
[[gnu::noinline]] void* operator new(size_t size) {
  n_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* const p = std::malloc(size == 0 ? 1 : size)) return p;
  std::abort();
}
[[gnu::noinline]] void* operator new(size_t size, const std::nothrow_t&) noexcept { return ::operator new(size); }
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace bitnet {
namespace {

BN_EVERY_ISA(Allocation);

TEST_P(Allocation, NoOperationTakesMemory) {
  constexpr int64_t kCols = 128, kRows = 96, kContext = 40;
  ThreadPool pool(2);
  TernarySource ternary;
  ternary.n_rows = kRows;
  ternary.n_cols = kCols;
  ternary.read_codes = [](int64_t, int64_t n, uint8_t* out) -> Status {
    std::memset(out, 2, size_t(n * kCols));
    return ok();
  };
  FloatSource table;
  table.dtype = DType::kF16;
  table.n_rows = kRows;
  table.n_cols = kCols;
  table.read_rows = [](int64_t, int64_t n, std::byte* out) -> Status {
    std::memset(out, 0x30, size_t(n * kCols * 2));
    return ok();
  };
  FloatSource head = table;
  head.use = TableUse::kHead;
  const auto ternary_matrix = cpu_.prepare(ternary, pool), table_matrix = cpu_.prepare(table, pool);
  const auto head_matrix = cpu_.prepare(head, pool);
  ASSERT_TRUE(ternary_matrix.has_value() && table_matrix.has_value() && head_matrix.has_value());
  for (int i = 0; i < 2; ++i) {  // the first reads the head, the second makes its sketch: both want scratch memory
    Floats x(1, kCols, 2), out(1, kRows);
    ASSERT_TRUE(cpu_.best_logits(*make_stream(cpu_, 2, 1, kCols), **head_matrix, x.view(), 5, out.view()));
  }
  const std::vector<float> weight(kCols, 1.0f), angles(kContext * 16, 0.5f);
  std::vector<uint16_t> k(kContext * kCols), v(kContext * kCols);
  const KvLayer f16 = {k.data(), v.data(), DType::kF16, 2, kContext, 64};
  const KvLayer q8_0 = {k.data(), v.data(), DType::kQ8_0, 2, kContext, 64};

  for (const int64_t n_tokens : {int64_t{1}, int64_t{30}}) {
    const auto stream = make_stream(cpu_, 2, n_tokens, kCols, kContext);
    Floats x(n_tokens, kCols), y(n_tokens, kCols, 1), out(n_tokens, kRows);
    Quantized q(n_tokens, kCols);
    const std::vector<int32_t> ids(size_t(n_tokens), 3);
    const LinearCall by_ternary = {ternary_matrix->get(), out.view()}, by_table = {table_matrix->get(), out.view()};
    const int64_t before = n_allocations.load();
    EXPECT_TRUE(cpu_.embed(*stream, **table_matrix, ids, x.view()));
    EXPECT_TRUE(
        cpu_.best_logits(*stream, **head_matrix, {x.values.data(), 1, kCols}, 5, {out.values.data(), 1, kRows}));
    cpu_.rms_norm(*stream, x.view(), weight, 1e-5f, y.view());
    cpu_.quantize(*stream, y.view(), q.view);
    cpu_.linear(*stream, {&by_ternary, 1}, q.view);
    cpu_.linear(*stream, {&by_ternary, 1}, y.view());
    cpu_.linear(*stream, {&by_table, 1}, y.view());
    cpu_.fake_quantize(*stream, y.view(), y.view());
    cpu_.rope(*stream, y.view(), 64, {angles.data(), angles.data(), kContext, 16}, 0);
    for (const KvLayer& kv : {f16, q8_0}) {
      cpu_.store_kv(*stream, x.view(), y.view(), kv, 0);
      cpu_.attention(*stream, x.view(), kv, 0, y.view());
    }
    cpu_.gate(*stream, GateActivation::kSilu, x.view(), y.view(), y.view());
    cpu_.add(*stream, x.view(), y.view());
    EXPECT_EQ(n_allocations.load(), before) << n_tokens << " tokens";
  }
}

}  // namespace
}  // namespace bitnet
