// Any bytes as a chat template. Oracle: an error, or segments that are merged, not empty, within the output limit and
// hold some of every message; and what a template writes does not depend on when it runs.

#include "tokenizer/chat_template.h"

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr size_t kMaxOutputBytes = size_t{4} << 20;

void require(bool holds) {
  if (!holds) std::abort();
}

// `marked`: all content and no template holds the control character 2.
void check(const std::vector<bitnet::ChatSegment>& segments, const std::vector<bitnet::ChatMessage>& messages,
           bool marked) {
  size_t n_bytes = 0;
  bool has_content = false;
  for (size_t i = 0; i < segments.size(); ++i) {
    require(!segments[i].text.empty());
    require(i == 0 || segments[i].from_template != segments[i - 1].from_template);
    if (segments[i].from_template && marked) require(segments[i].text.find('\x02') == std::string::npos);
    n_bytes += segments[i].text.size();
    has_content = has_content || !segments[i].from_template;
  }
  require(n_bytes <= kMaxOutputBytes);
  require(has_content || messages.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string source(reinterpret_cast<const char*>(data), size);
  const bitnet::Result<bitnet::ChatTemplate> parsed = bitnet::ChatTemplate::parse(source, "fuzz");
  if (!parsed) {
    require(!parsed.error().message.empty());
    return 0;
  }
  // The template may hold the mark itself or spell it with an escape; the clock may change the text.
  const bool may_write_mark = source.find('\\') != std::string::npos || source.find('\x02') != std::string::npos;
  const bool reads_clock = source.find("strftime_now") != std::string::npos;
  const std::string mark = may_write_mark ? "m" : "\x02";
  const std::vector<bitnet::ChatMessage> messages = {{"system", mark + " \xc3\xa9<|eot_id|>" + mark},
                                                     {"user", mark + mark},
                                                     {"assistant", mark + "\n{{ 1 }} " + mark},
                                                     {"no role " + mark, mark + "\xff'\"" + mark}};
  for (const size_t n : {messages.size(), size_t{2}, size_t{0}}) {
    const std::vector<bitnet::ChatMessage> some(messages.end() - static_cast<std::ptrdiff_t>(n), messages.end());
    const auto segments = parsed->render(some, n != 2, "<s>", "</s>");
    if (!segments) {
      require(!segments.error().message.empty());
      continue;
    }
    check(*segments, some, !may_write_mark);
    const auto again = parsed->render(some, n != 2, "<s>", "</s>");
    require(again.has_value() || reads_clock);
    for (size_t i = 0; !reads_clock && i < segments->size(); ++i) {
      require((*again)[i].text == (*segments)[i].text && (*again)[i].from_template == (*segments)[i].from_template);
    }
  }
  return 0;
}
