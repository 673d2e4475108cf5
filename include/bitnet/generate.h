#pragma once

#include "bitnet/result.h"
#include "bitnet/session.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// Applied in this order: penalties, then top-k, top-p, min-p on the temperature's distribution, then a draw.
struct SamplingOptions {
  float temperature = 0.8f;        // 0: the most likely token, lowest id on ties
  int top_k = 40;                  // 0: off
  float top_p = 0.95f;             // 1: off
  float min_p = 0.05f;             // 0: off
  float repeat_penalty = 1.0f;     // 1: off; divides positive and multiplies negative logits of recent tokens
  float frequency_penalty = 0.0f;  // times the count among recent tokens, subtracted
  float presence_penalty = 0.0f;   // subtracted once from each recent token
  int penalty_last_n = 64;         // recent tokens; -1: all
  uint64_t seed = 0;               // the same seed and input give the same text
};

// Of GenerateOptions::max_draft.
inline constexpr int64_t kMaxDraft = 32;

struct GenerateOptions {
  int64_t max_new_tokens = 256;  // -1: until the context is full
  SamplingOptions sampling;
  std::vector<std::string> stop;  // ends before any of these; never part of the text
  bool ignore_eos = false;
  bool add_bos = true;         // for text prompts
  bool parse_special = false;  // for text prompts: "<|eot_id|>" typed in the prompt is that token
  // Speculation by prompt lookup: up to so many tokens that followed the same words earlier are computed together with
  // the next one and kept as far as sampling chooses them. The tokens are the same, whatever the sampling; text that
  // repeats comes faster, other text up to a few percent slower. 0: off.
  int64_t max_draft = 0;
};

enum class StopReason : uint8_t { kLength, kEos, kStop, kContext, kCancelled };
const char* stop_reason_name(StopReason reason);  // "length", "eos", "stop", "context", "cancelled"

// One step of generation: the id and the text that became certain with it (whole UTF-8, possibly empty, held back
// while it may still turn out to begin a stop string). The last step of a stream may have id -1 and the rest of the
// text. Return false to stop.
using TokenCallback = std::function<bool(int32_t id, std::string_view text)>;

struct Output {
  std::string text;
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> ids;  // generated, the stop token not among them
  StopReason stop = StopReason::kLength;
  double prompt_s = 0;    // wall time of the prompt
  double generate_s = 0;  // wall time of the new tokens
};

// Continues the session's sequence with the prompt and then with generated tokens, which stay in the session. When
// the context is full generation ends with kContext: nothing is shifted out or forgotten. A prompt that does not fit
// is refused with both numbers. An empty prompt on an empty session starts from the begin-of-text token. Afterwards the
// session's logits may be empty: with a draft, or where the device draws the tokens (Session::append_sampled).
Result<Output> generate(Session& session, std::string_view prompt, const GenerateOptions& options = {},
                        const TokenCallback& on_token = {});
Result<Output> generate(Session& session, std::span<const int32_t> prompt_ids, const GenerateOptions& options = {},
                        const TokenCallback& on_token = {});

}  // namespace bitnet
