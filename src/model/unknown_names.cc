#include "model/unknown_names.h"

#include "format/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

namespace bitnet {

void note_unknown(const std::string& kind, const std::vector<std::string>& names, std::vector<std::string>& notices) {
  constexpr size_t kMaxNotices = 8;
  const size_t n_shown = std::min(names.size(), kMaxNotices);
  for (size_t i = 0; i < n_shown; ++i) {
    notices.push_back(fmt::format("{} {} is unknown and was ignored", kind, quote_name(names[i])));
  }
  if (names.size() > n_shown) {
    notices.push_back(fmt::format("{} more unknown {}s were ignored", names.size() - n_shown, kind));
  }
}

}  // namespace bitnet
