// Every entry of the CPU kernel table (src/kernels/cpu/kernel_table.h) by itself, on each instruction set, with
// operands that stay in the first caches: table_bench --benchmark_filter=rms_norm. Shapes are those of BitNet b1.58
// 2B4T. What memory and threads make of them is ops_bench's subject.
#include "base/rng.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/packing.h"
#include "tensor/dtype.h"

#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <vector>

namespace bitnet {
namespace {

constexpr int64_t kModel = 2560, kFeed = 6912, kHeadDim = 128, kContext = 512, kQueries = 4;

// Memory that every entry finds what it wants in: small normals, and bytes whose halves are small numbers.
struct Operands {
  Operands() : x(1 << 16), y(x), z(x), out(1 << 17), bytes(1 << 20), codes(1 << 20), quantized(1 << 17), ids(1024) {
    const CounterRng rng(1);
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = float(rng.normal(i)) * 0.5f;
      y[i] = float(rng.normal(i + x.size())) * 0.5f;
      z[i] = 1.0f + 0.1f * y[i];
    }
    for (size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = uint8_t(rng.bits(i) & 0x3f);
      codes[i] = uint8_t(rng.bits(i) % 3);
    }
    for (size_t i = 0; i < quantized.size(); ++i) quantized[i] = int8_t(rng.bits(i) & 0x7f);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i % 32);
  }
  std::vector<float> x, y, z, out;
  std::vector<uint8_t> bytes, codes;
  std::vector<int8_t> quantized;
  std::vector<int32_t> ids;
};
Operands& operands() {
  static Operands all;
  return all;
}

// fn(operands) works on `values` values.
template <class Fn>
void add(const std::string& op, const CpuKernels& kernels, int64_t values, Fn fn) {
  benchmark::RegisterBenchmark((op + "/" + kernels.name).c_str(), [=](benchmark::State& state) {
    Operands& o = operands();
    for (auto _ : state) {
      fn(o);
      benchmark::ClobberMemory();
    }
    state.counters["Gvalues/s"] =
        benchmark::Counter(1e-9 * double(values) * double(state.iterations()), benchmark::Counter::kIsRate);
  });
}

constexpr DType kTypes[kWeightTypes] = {DType::kF32,  DType::kF16,  DType::kQ8_0, DType::kBF16,
                                        DType::kQ6_K, DType::kQ4_0, DType::kQ4_K};
std::string type_name(int i) { return std::string(dtype_info(kTypes[i]).name); }
int64_t row_bytes(int i, int64_t n_cols) {
  return n_cols / dtype_info(kTypes[i]).block_size * dtype_info(kTypes[i]).block_bytes;
}

void add_ternary(const CpuKernels& k, const std::string& kind, const TernaryKernels& ternary, Packing packing) {
  const int64_t n_blocks = packing.n_blocks(kModel), n_bytes = packing.row_bytes(kModel);
  add("matvec_tile/" + kind, k, kTileRows * kModel, [=](Operands& o) {
    int32_t sums[kTileRows];
    ternary.matvec_tile(o.codes.data(), n_blocks, o.quantized.data(), sums);
    benchmark::DoNotOptimize(sums);
  });
  if (ternary.unpack_tile != nullptr) {
    add("unpack_tile/" + kind, k, kTileRows * kModel,
        [=](Operands& o) { ternary.unpack_tile(o.codes.data(), n_blocks, o.bytes.data()); });
  }
  add("dot_rows/" + kind, k, 32 * kModel, [=](Operands& o) {
    int32_t sums[32];
    ternary.dot_rows({o.codes.data(), n_bytes, o.ids.data(), 32, o.quantized.data(), sums});
    benchmark::DoNotOptimize(sums);
  });
  const int64_t column_bytes = packing.column_bytes(kModel);
  add("add_columns/" + kind, k, kColumnsAtOnce * kModel, [=](Operands& o) {
    std::memset(o.out.data(), 0, size_t(column_bytes * packing.n_fields()) * sizeof(int32_t));
    ternary.add_columns({o.codes.data(), column_bytes, o.ids.data(), o.quantized.data(), kColumnsAtOnce,
                         reinterpret_cast<int32_t*>(o.out.data())});
  });
}

void add_floats(const CpuKernels& k) {
  for (int i = 0; i < kWeightTypes; ++i) {
    add("dot/" + type_name(i), k, 8 * kModel, [&k, i](Operands& o) {
      k.dot[i]({o.bytes.data(), row_bytes(i, kModel), 8, o.x.data(), 0, 1, kModel, o.out.data(), 0});
    });
    add("widen/" + type_name(i), k, kModel, [&k, i](Operands& o) { k.widen[i](o.bytes.data(), kModel, o.out.data()); });
  }
  for (int i = 0; i < kCacheTypes; ++i) {
    add("narrow/" + type_name(i), k, kHeadDim,
        [&k, i](Operands& o) { k.narrow[i](o.x.data(), kHeadDim, o.bytes.data()); });
    add("weighted_sum/" + type_name(i), k, kContext / 4 * kHeadDim, [&k, i](Operands& o) {
      k.weighted_sum[i](
          {o.bytes.data(), row_bytes(i, kHeadDim), kContext / 4, kHeadDim, o.x.data(), 0, 1, o.out.data(), 0});
    });
  }
  add("scale_sums", k, kFeed, [&k](Operands& o) { k.scale_sums(o.ids.data(), 1024, 3, 0.01f, 0.02f, o.out.data()); });
  add("rms_norm", k, kModel, [&k](Operands& o) { k.rms_norm(o.x.data(), o.z.data(), 1e-5f, kModel, o.out.data()); });
  add("quantize", k, kModel, [&k](Operands& o) {
    float inv_scale;
    int32_t sum;
    k.quantize(o.x.data(), kModel, kModel, o.quantized.data(), &inv_scale, &sum);
    benchmark::DoNotOptimize(sum);
  });
  add("fake_quantize", k, kModel, [&k](Operands& o) { k.fake_quantize(o.out.data(), kModel); });
  add("rope", k, kHeadDim, [&k](Operands& o) { k.rope(o.out.data(), o.x.data(), o.y.data(), kHeadDim / 2); });
  add("softmax", k, kContext, [&k](Operands& o) {
    std::memcpy(o.out.data(), o.x.data(), size_t(kContext) * sizeof(float));
    benchmark::DoNotOptimize(k.softmax(o.out.data(), kContext, 0.1f));
  });
  add("scale", k, kModel, [&k](Operands& o) { k.scale(o.out.data(), kModel, 1.0f); });
  add("gate_relu2", k, kFeed, [&k](Operands& o) { k.gate_relu2(o.x.data(), o.y.data(), kFeed, o.out.data()); });
  add("gate_silu", k, kFeed, [&k](Operands& o) { k.gate_silu(o.x.data(), o.y.data(), kFeed, o.out.data()); });
  add("add", k, kModel, [&k](Operands& o) { k.add(o.x.data(), kModel, o.out.data()); });
  const int64_t n_sketch_blocks = kModel / kSketchBlockCols;
  add("matvec_tile/sketch", k, kTileRows * kModel, [=, &k](Operands& o) {
    int32_t sums[kTileRows];
    k.sketch.matvec_tile(o.bytes.data(), n_sketch_blocks, o.quantized.data(), sums);
    benchmark::DoNotOptimize(sums);
  });
  if (k.sketch.unpack_tile != nullptr) {
    add("unpack_tile/sketch", k, kTileRows * kModel,
        [=, &k](Operands& o) { k.sketch.unpack_tile(o.bytes.data(), n_sketch_blocks, o.codes.data()); });
  }
  add("sketch_row", k, kModel, [&k](Operands& o) {
    float errors[2];
    k.sketch_row(o.x.data(), kModel, 0.1f, 10.0f, o.quantized.data(), o.quantized.data() + kModel, errors);
    benchmark::DoNotOptimize(errors);
  });
}

// One head of a cache in tiles: kContext positions, kQueries queries that share it.
void add_attention_tiles(const CpuKernels& k) {
  constexpr int64_t kTiles = kContext / kTilePositions;
  for (const int64_t bits : {8, 4}) {
    const TileKernels& tiles = k.tiles[bits == 8 ? 0 : 1];
    const int64_t tile_bytes = kv_tile_bytes(kHeadDim, bits), stride = kHeadDim;
    const std::string kind = "/int" + std::to_string(bits);
    add("store_key" + kind, k, kHeadDim,
        [&tiles](Operands& o) { tiles.store_key(o.x.data(), kHeadDim, 5, o.bytes.data()); });
    add("store_value" + kind, k, kHeadDim,
        [&tiles](Operands& o) { tiles.store_value(o.x.data(), kHeadDim, 5, o.bytes.data()); });
    add("score_keys" + kind, k, kQueries * kContext * kHeadDim, [=, &tiles](Operands& o) {
      tiles.score_keys(
          {o.bytes.data(), tile_bytes, kTiles, o.x.data(), stride, kQueries, kHeadDim, o.out.data(), kContext});
    });
    add("sum_values" + kind, k, kQueries * kContext * kHeadDim, [=, &tiles](Operands& o) {
      tiles.sum_values({o.bytes.data(), tile_bytes, kTiles, o.x.data(), kContext, kQueries, kHeadDim, 0,
                        kHeadDim / kTileDims, o.out.data(), stride});
    });
    add("weigh_tiles" + kind, k, kContext, [=, &k](Operands& o) {
      std::memcpy(o.out.data(), o.z.data(), size_t(kContext) * sizeof(float));
      k.weigh_tiles(o.out.data(), kContext, kTiles, o.bytes.data(), tile_bytes, 0, 0);
    });
  }
  add("encode_query", k, kHeadDim, [&k](Operands& o) { k.encode_query(o.x.data(), kHeadDim, o.out.data()); });
  add("finish_head", k, kHeadDim, [&k](Operands& o) {
    std::memcpy(o.out.data(), o.x.data(), size_t(kHeadDim) * sizeof(float));
    k.finish_head(o.out.data(), kHeadDim, 0.5f);
  });
}

void add_training(const CpuKernels& k) {
  const TrainingKernels& t = k.training;
  constexpr int64_t kPairs = 128;
  add("product_i16", k, kProductRows * kProductCols * 2 * kPairs, [&t](Operands& o) {
    const auto* const words = reinterpret_cast<const int16_t*>(o.codes.data());
    t.product_i16(words, words, kPairs, reinterpret_cast<int32_t*>(o.out.data()));
  });
  add("product_f32", k, kProductRows * kProductCols * 2 * kPairs, [&t](Operands& o) {
    t.product_f32(o.x.data(), kProductRows, o.y.data(), kProductCols, 2 * kPairs, o.out.data());
  });
  add("scale_product", k, 1024, [&t](Operands& o) { t.scale_product(o.ids.data(), 1024, 0.1f, false, o.out.data()); });
  add("absmax", k, kModel, [&t](Operands& o) { benchmark::DoNotOptimize(t.absmax(o.x.data(), kModel)); });
  add("sum_squares", k, kModel, [&t](Operands& o) { benchmark::DoNotOptimize(t.sum_squares(o.x.data(), kModel)); });
  add("column_absmax", k, kModel, [&t](Operands& o) { t.column_absmax(o.x.data(), 1.5f, kModel, o.out.data()); });
  add("quantize_i16", k, kModel,
      [&t](Operands& o) { t.quantize_i16(o.x.data(), 1000.0f, kModel, reinterpret_cast<int16_t*>(o.out.data())); });
  add("quantize_pairs", k, 2 * kModel, [&t](Operands& o) {
    t.quantize_pairs(o.x.data(), 10.0f, o.y.data(), 10.0f, o.z.data(), kModel,
                     reinterpret_cast<int16_t*>(o.out.data()));
  });
  add("widen_pairs", k, 2 * kModel, [&t](Operands& o) {
    t.widen_pairs(o.quantized.data(), o.quantized.data() + kModel, 1, kModel, reinterpret_cast<int16_t*>(o.out.data()));
  });
  add("rms_norm_backward", k, kModel, [&t](Operands& o) {
    t.rms_norm_backward(o.x.data(), o.z.data(), 1e-5f, o.y.data(), kModel, false, o.out.data(), o.out.data() + kModel);
  });
  add("relu2_backward", k, kFeed, [&t](Operands& o) {
    t.relu2_backward(o.x.data(), o.y.data(), o.z.data(), kFeed, o.out.data(), o.out.data() + kFeed);
  });
  add("silu_backward", k, kFeed, [&t](Operands& o) {
    t.silu_backward(o.x.data(), o.y.data(), o.z.data(), kFeed, o.out.data(), o.out.data() + kFeed);
  });
  add("softmax_backward", k, kContext,
      [&t](Operands& o) { t.softmax_backward(o.x.data(), 0.1f, 0.1f, kContext, o.out.data()); });
  add("dot_product", k, kModel, [&t](Operands& o) { benchmark::DoNotOptimize(t.dot(o.x.data(), o.y.data(), kModel)); });
  add("add_scaled", k, kModel, [&t](Operands& o) { t.add_scaled(o.x.data(), 1e-9f, kModel, o.out.data()); });
  add("adamw", k, kModel, [&t](Operands& o) {
    float *const m = o.out.data(), *const v = m + kModel, *const p = v + kModel;
    t.adamw({o.x.data(), kModel, 1.0f, 0.9f, 0.95f, 1e-8f, 1.0f, 1e-4f, 1.0f, m, v, p});
  });
}

void register_all() {
  for (const CpuKernels* k : usable_cpu_kernels()) {
    add_ternary(*k, "fields", k->fields, Packing{false});
    if (k->digits != nullptr) add_ternary(*k, "digits", *k->digits, Packing{true});
    if (k->matmul.matmul_tile != nullptr) {
      const int64_t n_tokens = k->matmul.n_tokens, n_blocks = Packing{}.n_blocks(kModel);
      add("pack_tokens", *k, n_tokens * kModel, [=](Operands& o) {
        k->matmul.pack_tokens(o.quantized.data(), kModel, n_tokens, n_blocks,
                              reinterpret_cast<int8_t*>(o.bytes.data()));
      });
      add("matmul_tile", *k, n_tokens * kTileRows * kModel, [=](Operands& o) {
        k->matmul.matmul_tile(o.codes.data(), o.quantized.data(), n_blocks, n_tokens,
                              reinterpret_cast<int32_t*>(o.out.data()));
      });
    }
    add_floats(*k);
    add_attention_tiles(*k);
    add_training(*k);
  }
}

}  // namespace
}  // namespace bitnet

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  bitnet::register_all();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
