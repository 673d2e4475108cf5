#include "bitnet/generate.h"

#include "base/result.h"
#include "runtime/sampler.h"
#include "runtime/stop_matcher.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <optional>

namespace bitnet {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The text side of a stream: tokens in, text that is certain out, to the caller and to the output.
class TextStream {
 public:
  // `last_id` is the token before the stream: what follows it is not the beginning of a text.
  TextStream(const Tokenizer* tokenizer, int32_t last_id, StopMatcher stops, const TokenCallback& on_token,
             Output& output)
      : stops_(std::move(stops)), on_token_(on_token), output_(output) {
    if (tokenizer == nullptr) return;
    decoder_.emplace(*tokenizer);
    decoder_->push(last_id);
  }

  // False when the caller wants no more.
  bool push(int32_t id) { return emit(id, decoder_ ? stops_.push(decoder_->push(id)) : std::string_view()); }
  bool matched() const { return stops_.matched(); }
  // Hands out what was held back; without `tell` only to the output.
  void finish(bool tell) {
    if (!decoder_) return;
    rest_ = stops_.push(decoder_->finish());
    rest_ += stops_.finish();
    if (rest_.empty()) return;
    if (tell) {
      emit(-1, rest_);
    } else {
      output_.text += rest_;
    }
  }

 private:
  bool emit(int32_t id, std::string_view text) {
    output_.text += text;
    return !on_token_ || on_token_(id, text);
  }

  std::optional<StreamDecoder> decoder_;
  StopMatcher stops_;
  const TokenCallback& on_token_;
  Output& output_;
  std::string rest_;
};

// Samples and feeds until something ends it.
Result<StopReason> generate_tokens(Session& session, const GenerateOptions& options, Sampler& sampler, TextStream& text,
                                   Output& output) {
  const Tokenizer* const tokenizer = session.model().tokenizer();
  while (options.max_new_tokens < 0 || int64_t(output.ids.size()) < options.max_new_tokens) {
    if (session.n_past() == session.n_ctx()) return StopReason::kContext;
    BN_ASSIGN_OR_RETURN(const int32_t id, sampler.sample(session.logits(), session.ids()));
    if (!options.ignore_eos && tokenizer != nullptr && tokenizer->is_stop(id)) return StopReason::kEos;
    output.ids.push_back(id);
    const bool wanted = text.push(id);
    // Fed even when it is the last: the session then stands where a next call can continue.
    BN_RETURN_IF_ERROR(session.append({&id, 1}));
    if (text.matched()) return StopReason::kStop;
    if (!wanted) return StopReason::kCancelled;
  }
  return StopReason::kLength;
}

// The prompt; where it and the session are empty, the begin-of-text token.
Result<std::vector<int32_t>> first_tokens(const Session& session, std::span<const int32_t> prompt_ids) {
  if (!prompt_ids.empty() || session.n_past() > 0) return std::vector<int32_t>(prompt_ids.begin(), prompt_ids.end());
  const Tokenizer* const tokenizer = session.model().tokenizer();
  const std::optional<int32_t> bos = tokenizer != nullptr ? tokenizer->bos_id() : std::nullopt;
  if (bos) return std::vector<int32_t>{*bos};
  return invalid_argument("the prompt is empty and the model {} names no begin-of-text token to start from",
                          session.model().info().path);
}

Result<Output> generate_from_ids(Session& session, std::span<const int32_t> prompt_ids, const GenerateOptions& options,
                                 const TokenCallback& on_token) {
  if (options.max_new_tokens < -1) {
    return invalid_argument("max_new_tokens is {}, expected -1 (until the context is full) or more",
                            options.max_new_tokens);
  }
  const Tokenizer* const tokenizer = session.model().tokenizer();
  if (tokenizer == nullptr && !options.stop.empty()) {
    return invalid_argument("stop strings need text, but the model {} carries no vocabulary",
                            session.model().info().path);
  }
  BN_ASSIGN_OR_RETURN(StopMatcher stops, StopMatcher::create(options.stop));
  BN_ASSIGN_OR_RETURN(Sampler sampler, Sampler::create(options.sampling, session.model().info().vocab_size));

  session.want_logits(Sampler::n_best(options.sampling));
  Output output;
  const Clock::time_point start = Clock::now();
  BN_ASSIGN_OR_RETURN(output.prompt_ids, first_tokens(session, prompt_ids));
  Status prompt = session.append(output.prompt_ids);
  output.prompt_s = seconds_since(start);
  if (!prompt) {
    if (prompt.error().code != ErrorCode::kInterrupted) return std::move(prompt.error());
    output.stop = StopReason::kCancelled;
    return output;
  }

  const int64_t room = session.n_ctx() - session.n_past();
  output.ids.reserve(size_t(options.max_new_tokens < 0 ? room : std::min(room, options.max_new_tokens)));
  const Clock::time_point first_token = Clock::now();
  TextStream text(tokenizer, session.ids().back(), std::move(stops), on_token, output);
  Result<StopReason> stop = generate_tokens(session, options, sampler, text, output);
  if (!stop && stop.error().code != ErrorCode::kInterrupted) return std::move(stop.error());
  output.stop = stop ? *stop : StopReason::kCancelled;
  text.finish(output.stop != StopReason::kCancelled);
  output.generate_s = seconds_since(first_token);
  return output;
}

Result<Output> generate_from_text(Session& session, std::string_view prompt, const GenerateOptions& options,
                                  const TokenCallback& on_token) {
  const Tokenizer* const tokenizer = session.model().tokenizer();
  if (tokenizer == nullptr) {
    Error error = invalid_argument("the model {} carries no vocabulary, so a text prompt cannot become token ids",
                                   session.model().info().path);
    error.suggestion = "token ids as the prompt, or LoadOptions::tokenizer_path with a vocabulary of this model";
    return error;
  }
  EncodeOptions encode;
  encode.add_bos = options.add_bos && session.n_past() == 0;
  encode.parse_special = options.parse_special;
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer->encode(prompt, encode));
  return generate_from_ids(session, ids, options, on_token);
}

Error no_memory() { return make_error(ErrorCode::kResource, "no memory to generate text"); }

}  // namespace

const char* stop_reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::kLength: return "length";
    case StopReason::kEos: return "eos";
    case StopReason::kStop: return "stop";
    case StopReason::kContext: return "context";
    case StopReason::kCancelled: return "cancelled";
  }
  return "unknown";
}

Result<Output> generate(Session& session, std::span<const int32_t> prompt_ids, const GenerateOptions& options,
                        const TokenCallback& on_token) {
  try {
    return generate_from_ids(session, prompt_ids, options, on_token);
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
}

Result<Output> generate(Session& session, std::string_view prompt, const GenerateOptions& options,
                        const TokenCallback& on_token) {
  try {
    return generate_from_text(session, prompt, options, on_token);
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
}

}  // namespace bitnet
