#include "format/gguf.h"
#include "format/json.h"
#include "model/config.h"
#include "model/weights.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

using namespace bitnet;

namespace {

using Int128 = __int128;

void require(bool holds) {
  if (!holds) __builtin_trap();
}

// Whatever is accepted: passes the checks again, and no sum of its weights' sizes wraps.
void check(const ModelConfig& config) {
  require(check_config(config, "fuzz").has_value());
  require(!config.architecture.empty());
  require(config.n_heads % config.n_kv_heads == 0 && config.rope_dim <= config.head_dim);
  require(std::isfinite(config.rope_theta) && std::isfinite(config.rms_eps));
  Int128 sum = 0;
  for (const WeightSpec& spec : list_weights(config)) {
    Int128 n = 1;
    for (const int64_t dim : spec.shape) {
      require(dim > 0);
      n *= dim;
    }
    require(n == Int128(spec.n_values()));
    require(!spec.gguf_name.empty() && !spec.hf_name.empty());
    sum += n;
  }
  require(sum == Int128(count_parameters(config)));
}

void check_json(std::string_view text) {
  const auto json = parse_json(text, "fuzz.json");
  if (!json) return;
  const auto parsed = config_from_hf(*json, "fuzz.json");
  if (!parsed) {
    require(parsed.error().message.find("fuzz.json") != std::string::npos);
    return;
  }
  check(parsed->config);
  // What we write says the same.
  const auto again = config_from_hf(config_to_hf(parsed->config), "again.json");
  require(again.has_value());
  require(again->config.architecture == parsed->config.architecture);
  require(count_parameters(again->config) == count_parameters(parsed->config));
  require(again->config.rms_eps == parsed->config.rms_eps && again->config.rope_theta == parsed->config.rope_theta);
}

}  // namespace

// A GGUF header, or anything else as config.json.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (text.rfind("GGUF", 0) != 0) {
    check_json(text);
    return 0;
  }
  const auto file = GgufFile::parse(std::as_bytes(std::span(data, size)), "fuzz.gguf");
  if (!file) return 0;
  const auto parsed = config_from_gguf(*file);
  if (parsed) {
    check(parsed->config);
  } else {
    require(parsed.error().message.find("fuzz.gguf") != std::string::npos);
  }
  return 0;
}
