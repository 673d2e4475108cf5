#pragma once

#include "base/result.h"
#include "base/rng.h"
#include "model/config.h"
#include "train/core/parameters.h"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

// For the tests of this room: a small model, tokens for it, and tables of rotations.
namespace bitnet {

inline ModelConfig small_config() {
  ModelConfig c;
  c.architecture = "bitnet-b1.58";
  c.n_layers = 2;
  c.d_model = 24;
  c.d_ff = 40;
  c.n_heads = 6;
  c.n_kv_heads = 2;
  c.head_dim = c.rope_dim = 4;
  c.vocab_size = 19;
  c.n_ctx_train = 7;
  c.sub_norms = c.tied_head = true;
  return c;
}

// Ids below `vocab_size`.
inline std::vector<int32_t> random_ids(int64_t n, int64_t vocab_size, uint64_t seed) {
  const CounterRng rng(seed, 77);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(rng.bits(i) % uint64_t(vocab_size));
  return ids;
}

struct TestRope {
  TestRope(const ModelConfig& c, int64_t n_positions) {
    for (int64_t t = 0; t < n_positions; ++t) {
      for (int64_t i = 0; i < c.rope_dim / 2; ++i) {
        const double angle = double(t) * std::pow(c.rope_theta, -2.0 * double(i) / double(c.rope_dim));
        cos.push_back(float(std::cos(angle)));
        sin.push_back(float(std::sin(angle)));
      }
    }
    view = {cos.data(), sin.data(), n_positions, c.rope_dim / 2};
  }
  std::vector<float> cos, sin;
  RopeTable view;
};

// The first weights of a run, norms included away from 1, as doubles or floats.
template <class Real>
std::vector<Real> random_parameters(const ModelConfig& config, const ParameterLayout& layout, uint64_t seed) {
  std::vector<float> values(size_t(layout.n_values()));
  initialize_parameters(config, layout, seed, 0.2, values.data());
  const CounterRng rng(seed, 78);
  for (const ParameterSlice& slice : layout.slices()) {
    if (slice.spec.kind != WeightKind::kVector) continue;
    for (int64_t i = slice.offset; i < slice.offset + slice.n_values; ++i) {
      values[size_t(i)] += float(0.2 * rng.normal(uint64_t(i)));
    }
  }
  return {values.begin(), values.end()};
}

// A ternary model whose weights stay: codes of every linear, tables and norms in floats.
struct TestBase {
  struct Linear {
    std::vector<uint8_t> codes;
    float alpha = 1;
  };
  TestBase(const ModelConfig& c, uint64_t seed) : config(c), layout(ParameterLayout::make_tables_and_norms(c)) {
    values = random_parameters<float>(config, layout, seed);
  }
  Result<Linear> linear(WeightRole role, int64_t layer) const {
    for (const WeightSpec& spec : list_weights(config)) {
      if (spec.role != role || spec.layer != layer) continue;
      const CounterRng rng{uint64_t(role), uint64_t(layer)};
      Linear out;
      for (int64_t i = 0; i < spec.n_values(); ++i) out.codes.push_back(uint8_t(rng.bits(uint64_t(i)) % 3));
      out.alpha = 0.2f + 0.01f * float(role);
      return out;
    }
    return invalid_argument("no such linear");
  }
  ModelConfig config;
  ParameterLayout layout;
  std::vector<float> values;
};

inline std::vector<WeightRole> all_linears() {
  return {WeightRole::kQ,    WeightRole::kK,  WeightRole::kV,   WeightRole::kO,
          WeightRole::kGate, WeightRole::kUp, WeightRole::kDown};
}

// Adapters on their way: B is not 0.
template <class Real>
std::vector<Real> random_adapters(const ParameterLayout& layout, uint64_t seed) {
  std::vector<float> values(size_t(layout.n_values()));
  const CounterRng rng(seed, 79);
  for (const ParameterSlice& slice : layout.slices()) {
    for (int64_t i = slice.offset; i < slice.offset + slice.n_values; ++i) {
      values[size_t(i)] = float(0.1 * rng.normal(uint64_t(i)));
    }
  }
  return {values.begin(), values.end()};
}

}  // namespace bitnet
