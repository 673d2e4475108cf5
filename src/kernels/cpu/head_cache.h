#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/cpu_matrix.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/float_constants.h"

#include <algorithm>
#include <cstdint>

namespace bitnet {

// Queries that share a key/value head, `stride` floats apart in q and in out: heads of one token, which see the same
// positions, or one head of consecutive tokens, each of which sees one more.
struct QueryRun {
  int64_t kv_head;
  const float* q;
  float* out;
  int64_t n;  // at most kQueriesAtOnce
  int64_t stride;
  int64_t n_seen;  // by the first
  bool tokens;

  int64_t length(int64_t j) const { return n_seen + (tokens ? j : 0); }
  int64_t longest() const { return length(n - 1); }
};
// [n queries, stride], what attention makes of them in place.
struct ScoreRows {
  float* data;
  int64_t stride;
  float* row(int64_t j) const { return data + j * stride; }
};

// How attention's steps (cpu_attention.cc) work on a cache of rows. An output is ready after add_values() of all parts;
// of a tiled cache, after finish().
class RowCache {
 public:
  static constexpr int64_t kPositions = 128;  // a share of score() begins and ends at multiples
  static constexpr bool kFinishes = false;

  RowCache(const CpuKernels& kernels, const KvLayer& kv)
      : kernels_(kernels), kv_(kv), type_(size_t(weight_type(kv.dtype))) {}

  int64_t n_parts() const { return (kv_.head_dim + kColumns - 1) / kColumns; }  // of an output's columns

  void begin(const QueryRun&) const {}

  // Products of all queries with the keys of positions [first, end).
  void score(const QueryRun& run, int64_t first, int64_t end, const ScoreRows& scores) const {
    kernels_.dot[type_]({.rows = rows(kv_.k, run.kv_head) + first * kv_.row_bytes(),
                         .row_bytes = kv_.row_bytes(),
                         .n_rows = end - first,
                         .x = run.q,
                         .x_stride = run.stride,
                         .n_x = run.n,
                         .n_cols = kv_.head_dim,
                         .out = scores.data + first,
                         .out_stride = scores.stride});
  }

  // From the softmax over n positions of one query, the j-th of its run, to what add_values() takes; others of the run
  // see up to run.longest().
  void weigh(const QueryRun&, int64_t /*j*/, float* /*scores*/, int64_t /*n*/) const {}

  // Parts [first, end) of the outputs; inverse[j] is the reciprocal of query j's sum of weights.
  void add_values(const QueryRun& run, const ScoreRows& weights, const float* inverse, int64_t first,
                  int64_t end) const {
    const int64_t d = kv_.head_dim, row_bytes = kv_.row_bytes();
    const int64_t col = first * kColumns, n_cols = std::min(end * kColumns, d) - col;
    const uint8_t* const values = rows(kv_.v, run.kv_head) + col * row_bytes / d;
    WeightedSumArgs sum = {.values = values,
                           .row_bytes = row_bytes,
                           .n_values = 0,
                           .n_cols = n_cols,
                           .weights = weights.data,
                           .weights_stride = weights.stride,
                           .n_out = run.n,
                           .out = run.out + col,
                           .out_stride = run.stride};
    for (int64_t j = 0; j < run.n; ++j) std::fill_n(run.out + j * run.stride + col, n_cols, 0.0f);
    const auto add_tiles = [&](const float* from, int64_t first_value, int64_t end_value) {
      for (int64_t t = first_value; t < end_value; t += kValueTile) {
        sum.values = values + t * row_bytes;
        sum.n_values = std::min<int64_t>(kValueTile, end_value - t);
        sum.weights = from + t;
        kernels_.weighted_sum[type_](sum);
      }
    };
    // Tiles that are not whole for all are added up for each token alone.
    const int64_t common = run.tokens ? run.n_seen / kValueTile * kValueTile : run.n_seen;
    add_tiles(weights.data, 0, common);
    for (int64_t j = 0; j < run.n && run.tokens; ++j) {
      sum.n_out = 1;
      sum.out = run.out + j * run.stride + col;
      add_tiles(weights.row(j), common, run.length(j));
    }
    for (int64_t j = 0; j < run.n; ++j) kernels_.scale(run.out + j * run.stride + col, n_cols, inverse[j]);
  }

  void finish(float* /*out*/, float /*inverse*/) const {}

 private:
  static constexpr int64_t kColumns = 64;  // whole blocks of every type

  const uint8_t* rows(const void* cache, int64_t kv_head) const {
    return static_cast<const uint8_t*>(cache) + kv_head * kv_.head_bytes();
  }

  const CpuKernels& kernels_;
  const KvLayer kv_;
  const size_t type_;
};

// The same on a cache of tiles (numerics.md 14). Queries become codes in the place of their outputs.
class TileCache {
 public:
  static constexpr int64_t kPositions = 2 * kTilePositions;
  static constexpr bool kFinishes = true;

  TileCache(const CpuKernels& kernels, const KvLayer& kv)
      : kernels_(kernels),
        tiles_(kernels.tiles[kv.bits() == 4]),
        kv_(kv),
        tile_bytes_(kv_tile_bytes(kv.head_dim, kv.bits())) {}

  int64_t n_parts() const { return kv_.head_dim / kTileDims; }

  void begin(const QueryRun& run) const {
    for (int64_t j = 0; j < run.n; ++j) {
      kernels_.encode_query(run.q + j * run.stride, kv_.head_dim, run.out + j * run.stride);
    }
  }
  void score(const QueryRun& run, int64_t first, int64_t end, const ScoreRows& scores) const {
    tiles_.score_keys({.tiles = tiles(kv_.k, run.kv_head) + first / kTilePositions * tile_bytes_,
                       .tile_bytes = tile_bytes_,
                       .n_tiles = n_tiles(end) - first / kTilePositions,
                       .queries = run.out,
                       .stride = run.stride,
                       .n_queries = run.n,
                       .head_dim = kv_.head_dim,
                       .scores = scores.data + first,
                       .scores_stride = scores.stride});
  }
  void weigh(const QueryRun& run, int64_t j, float* scores, int64_t n) const {
    // Memory would be idle: every query asks for its share of the values.
    const int64_t share = (tile_bytes_ + run.n - 1) / run.n;
    kernels_.weigh_tiles(scores, n, n_tiles(run.longest()), tiles(kv_.v, run.kv_head), tile_bytes_, j * share,
                         std::min((j + 1) * share, tile_bytes_));
  }
  void add_values(const QueryRun& run, const ScoreRows& weights, const float* /*inverse*/, int64_t first,
                  int64_t end) const {
    tiles_.sum_values({.tiles = tiles(kv_.v, run.kv_head),
                       .tile_bytes = tile_bytes_,
                       .n_tiles = n_tiles(run.longest()),
                       .weights = weights.data,
                       .weights_stride = weights.stride,
                       .n_queries = run.n,
                       .head_dim = kv_.head_dim,
                       .first_part = first,
                       .end_part = end,
                       .out = run.out,
                       .stride = run.stride});
  }
  void finish(float* out, float inverse) const { kernels_.finish_head(out, kv_.head_dim, inverse); }

 private:
  static int64_t n_tiles(int64_t n_positions) { return (n_positions + kTilePositions - 1) / kTilePositions; }
  const uint8_t* tiles(const void* cache, int64_t kv_head) const {
    return static_cast<const uint8_t*>(cache) + kv_head * kv_.head_bytes();
  }

  const CpuKernels& kernels_;
  const TileKernels& tiles_;
  const KvLayer kv_;
  const int64_t tile_bytes_;
};

}  // namespace bitnet
