// quantize_matrix [SCHEME ...]: what schemes cost on a matrix of normals, a few columns of which are ten times as
// large.
#include "base/rng.h"
#include "kernels/cpu/dispatch.h"
#include "quant/error_metrics.h"
#include "quant/scheme.h"

#include <cstdio>

using namespace bitnet;

int fail(const Error& error) {
  std::fprintf(stderr, "quantize_matrix: %s\n", error.message.c_str());
  return int(error.code);
}

int main(int argc, char** argv) {
  constexpr int64_t kRows = 256, kCols = 1024;
  std::vector<float> weights(kRows * kCols), approximation(weights.size());
  const CounterRng rng(42);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = float(rng.normal(i)) * (i % 256 == 7 ? 0.2f : 0.02f);

  std::vector<std::string> schemes(argv + 1, argv + argc);
  if (schemes.empty()) {
    schemes = {"q1_0",          "absmean",        "lsq:per=row",        "lsq:group=64", "q2_k",
               "int3:group=64", "q4_k",           "int4:group=64,asym", "int4:per=row", "int4:per=row,rotate=256",
               "q8_0",          "int8:per=column"};
  }
  std::printf("%-24s %6s %9s %8s\n", "scheme", "bits", "SQNR dB", "cosine");
  for (const std::string& text : schemes) {
    const auto scheme = parse_scheme(text);
    if (!scheme) return fail(scheme.error());
    const auto bytes = quantize_by_scheme(*scheme, weights, kRows, kCols, cpu_ternary_codecs());
    if (!bytes) return fail(bytes.error());
    const auto read = dequantize_stored(scheme->stored, *bytes, kRows, kCols, approximation.data());
    if (!read) return fail(read.error());
    ErrorMeter meter;
    meter.add(weights, approximation);
    const ErrorMetrics error = meter.metrics();
    std::printf("%-24s %6.2f %9.2f %8.5f\n", text.c_str(), nominal_bits(*scheme, kRows, kCols), error.sqnr_db,
                error.cosine);
  }
  return 0;
}
