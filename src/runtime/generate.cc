#include "bitnet/generate.h"

#include "base/result.h"
#include "runtime/prompt_lookup.h"
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

// Samples and feeds until something ends it. Each step feeds the token that was chosen and a draft of what may follow;
// sampling then walks the logits behind them and keeps the draft as far as it chooses the same tokens, with the same
// draws as one token at a time would take.
class Generation {
 public:
  Generation(Session& session, const GenerateOptions& options, Sampler& sampler, TextStream& text, Output& output)
      : session_(session),
        options_(options),
        tokenizer_(session.model().tokenizer()),
        sampler_(sampler),
        text_(text),
        output_(output),
        lookup_(options.max_draft) {
    history_.reserve(size_t(session.n_ctx()));
    history_.assign(session.ids().begin(), session.ids().end());
    batch_.reserve(size_t(options.max_draft + 1));
  }

  Result<StopReason> run() {
    BN_RETURN_IF_ERROR(choose_from(session_.logits()));
    while (!reason_) BN_RETURN_IF_ERROR(step());
    return *reason_;
  }

 private:
  Status choose_from(std::span<const float> logits) {
    return choose([&] { return sampler_.sample(logits, history_); });
  }
  // Chooses the token after history_, next(), and tells it; or ends here.
  template <class Next>
  Status choose(const Next& next) {
    if (text_.matched()) return end(StopReason::kStop);
    if (!wanted_) return end(StopReason::kCancelled);
    if (options_.max_new_tokens >= 0 && int64_t(output_.ids.size()) >= options_.max_new_tokens) {
      return end(StopReason::kLength);
    }
    if (int64_t(history_.size()) == session_.n_ctx()) return end(StopReason::kContext);
    BN_ASSIGN_OR_RETURN(const int32_t id, next());
    if (!options_.ignore_eos && tokenizer_ != nullptr && tokenizer_->is_stop(id)) return end(StopReason::kEos);
    output_.ids.push_back(id);
    history_.push_back(id);
    wanted_ = text_.push(id);
    return ok();
  }
  Status end(StopReason reason) {
    reason_ = reason;
    return ok();
  }

  // Feeds the last token of history_, even when it is the last of all: the session then stands where a next call can
  // continue.
  Status step() {
    const int64_t n_past = session_.n_past();
    batch_.assign(1, history_.back());
    const std::span<const int32_t> draft = lookup_.propose(history_, draft_room());
    if (draft.empty()) {
      BN_ASSIGN_OR_RETURN(const std::optional<int32_t> drawn,
                          session_.append_sampled(batch_[0], options_.sampling, sampler_.n_draws()));
      if (drawn) {
        sampler_.count_draw();
        return choose([&]() -> Result<int32_t> { return *drawn; });
      }
      BN_RETURN_IF_ERROR(session_.append(batch_));
      return choose_from(session_.logits());
    }
    batch_.insert(batch_.end(), draft.begin(), draft.end());
    n_kept_ = 0;
    left_ = false;
    BN_RETURN_IF_ERROR(
        session_.append(batch_, [this](int64_t, std::span<const float> logits) { return walk(logits); }));
    if (failure_) return *std::move(failure_);
    lookup_.report(n_kept_ - 1);
    return n_kept_ == int64_t(batch_.size()) ? ok() : session_.truncate(n_past + n_kept_);
  }

  // Tokens that may be told yet.
  int64_t draft_room() const {
    const int64_t in_context = session_.n_ctx() - session_.n_past() - 1;
    return options_.max_new_tokens < 0 ? in_context
                                       : std::min(in_context, options_.max_new_tokens - int64_t(output_.ids.size()));
  }

  // One position of the batch: true always, so that the session keeps what it computed.
  bool walk(std::span<const float> logits) {
    if (left_ || reason_ || failure_) return true;
    ++n_kept_;
    if (auto status = choose_from(logits); !status) failure_ = std::move(status.error());
    left_ = n_kept_ < int64_t(batch_.size()) && !reason_ && !failure_ && history_.back() != batch_[size_t(n_kept_)];
    return true;
  }

  Session& session_;
  const GenerateOptions& options_;
  const Tokenizer* const tokenizer_;
  Sampler& sampler_;
  TextStream& text_;
  Output& output_;
  PromptLookup lookup_;
  std::vector<int32_t> history_;  // what the session holds and the token to feed next
  std::vector<int32_t> batch_;
  int64_t n_kept_ = 0;  // of the batch
  bool left_ = false;   // sampling chose another token than the draft
  bool wanted_ = true;
  std::optional<StopReason> reason_;
  std::optional<Error> failure_;
};

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
  if (options.max_draft < 0 || options.max_draft > kMaxDraft) {
    return invalid_argument("max_draft is {}, expected 0 (off) to {}", options.max_draft, kMaxDraft);
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
  Result<StopReason> stop = Generation(session, options, sampler, text, output).run();
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
