#include "train/core/quantization.h"

#include <algorithm>
#include <charconv>

namespace bitnet {
namespace {

constexpr int kMinBits = 2, kMaxBits = 8;
constexpr int64_t kMaxSteps = int64_t{1} << 40;

// False: not a whole number from `least` to `most`.
bool parse_whole(std::string_view text, int64_t least, int64_t most, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= least && value <= most;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

}  // namespace

LayerQuantization QuantizationSchedule::at(int64_t step, int64_t n_layers) const {
  std::vector<QuantizationOptions> layers(size_t(n_layers), finished);
  for (int64_t layer = 0; layer < n_layers && finished.enabled; ++layer) {
    QuantizationOptions& options = layers[size_t(layer)];
    const int64_t order = last_first ? n_layers - 1 - layer : layer, clock = step - order * layer_steps;
    options.enabled = clock > 0;
    if (lambda_warmup > 0) options.lambda = std::clamp(double(clock) / double(lambda_warmup), 0.0, 1.0);
    int64_t end = 0;
    for (const Width& width : widths) {
      if (clock > end) options.levels = (1 << (width.bits - 1)) - 1;
      end += width.n_steps;
    }
    if (clock > end) options.levels = 1;
  }
  return LayerQuantization(std::move(layers));
}

int64_t QuantizationSchedule::ends_at(int64_t n_layers) const {
  if (!finished.enabled) return 1;
  int64_t n_width_steps = 0;
  for (const Width& width : widths) n_width_steps += width.n_steps;
  return (n_layers - 1) * layer_steps + std::max({int64_t{1}, lambda_warmup, n_width_steps + 1});
}

Result<std::vector<QuantizationSchedule::Width>> parse_widths(std::string_view text) {
  std::vector<QuantizationSchedule::Width> widths;
  const std::string whole(text);
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view part = trimmed(text.substr(0, comma));
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    const size_t colon = part.find(':');
    int64_t bits = 0, n_steps = 0;
    if (colon == std::string_view::npos || !parse_whole(part.substr(0, colon), kMinBits, kMaxBits, bits) ||
        !parse_whole(part.substr(colon + 1), 1, kMaxSteps, n_steps)) {
      return invalid_argument("bits is \"{}\", expected BITS:STEPS of {} to {} bits, separated by commas", whole,
                              kMinBits, kMaxBits);
    }
    if (!widths.empty() && bits >= widths.back().bits) {
      return invalid_argument("bits is \"{}\": {} bits cannot follow {}, widths fall", whole, bits, widths.back().bits);
    }
    widths.push_back({int(bits), n_steps});
  }
  return widths;
}

}  // namespace bitnet
