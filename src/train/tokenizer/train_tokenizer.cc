#include "train/tokenizer/train_tokenizer.h"

#include "bitnet/tokenizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/unicode.h"
#include "train/tokenizer/count_words.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <unordered_map>

namespace bitnet {
namespace {

constexpr int64_t kMaxVocabSize = 10'000'000;
constexpr int64_t kProgressInterval = 64;  // merges

// One token may both begin and end texts.
std::vector<std::string> special_tokens(const VocabularyPlan& plan) {
  std::vector<std::string> tokens, wanted = {plan.bos, plan.eos};
  wanted.insert(wanted.end(), plan.special.begin(), plan.special.end());
  for (std::string& token : wanted) {
    if (!token.empty() && std::find(tokens.begin(), tokens.end(), token) == tokens.end()) {
      tokens.push_back(std::move(token));
    }
  }
  return tokens;
}

Status check_plan(const VocabularyPlan& plan) {
  const int64_t least = 256 + int64_t(special_tokens(plan).size());
  if (plan.vocab_size < least || plan.vocab_size > kMaxVocabSize) {
    return invalid_argument("a vocabulary of {} tokens, expected {} (256 bytes and {} special tokens) to {}",
                            plan.vocab_size, least, least - 256, kMaxVocabSize);
  }
  if (plan.min_count < 1) return invalid_argument("a least count of {}, expected at least 1", plan.min_count);
  return ok();
}

}  // namespace

std::vector<int32_t> alphabet_ids() {
  std::array<uint8_t, 256> bytes;
  std::iota(bytes.begin(), bytes.end(), uint8_t(0));
  std::sort(bytes.begin(), bytes.end(),
            [](uint8_t a, uint8_t b) { return alphabet_from_byte(a) < alphabet_from_byte(b); });
  std::vector<int32_t> ids(256);
  for (size_t i = 0; i < 256; ++i) ids[bytes[i]] = int32_t(i);
  return ids;
}

Result<Vocabulary> learn_vocabulary(const VocabularyPlan& plan, PairMerger& merger,
                                    const std::function<bool(double done)>& on_progress,
                                    std::vector<std::string>& notices) {
  BN_RETURN_IF_ERROR(check_plan(plan));
  const auto* known = PreTokenizer::find(plan.pre);
  if (known == nullptr) {
    return invalid_argument("there is no pre-tokenizer {}; there are {}", plan.pre, PreTokenizer::known_names());
  }
  Vocabulary vocabulary;
  vocabulary.pre = known->canonical;
  vocabulary.ignore_merges = known->ignore_merges;
  const std::vector<int32_t> ids_of_bytes = alphabet_ids();
  vocabulary.tokens.resize(256);
  for (int byte = 0; byte < 256; ++byte) {
    append_utf8(vocabulary.tokens[size_t(ids_of_bytes[size_t(byte)])], alphabet_from_byte(uint8_t(byte)));
  }
  std::unordered_map<std::string, int32_t> ids;
  for (size_t id = 0; id < 256; ++id) ids.emplace(vocabulary.tokens[id], int32_t(id));
  const std::vector<std::string> special = special_tokens(plan);
  const size_t n_normal = size_t(plan.vocab_size) - special.size();
  while (vocabulary.tokens.size() < n_normal) {
    const auto best = merger.best();
    if (!best || best->count < plan.min_count) {
      notices.push_back(
          fmt::format("the text is enough for {} of the {} tokens only: no other pair of neighbours occurs "
                      "{} times",
                      vocabulary.tokens.size() + special.size(), plan.vocab_size, plan.min_count));
      break;
    }
    const std::string& left = vocabulary.tokens[size_t(best->pair.first)];
    const std::string& right = vocabulary.tokens[size_t(best->pair.second)];
    vocabulary.merges.emplace_back(left, right);
    // Two ways to the same token are two merges.
    const auto [token, is_new] = ids.emplace(left + right, int32_t(vocabulary.tokens.size()));
    if (is_new) vocabulary.tokens.push_back(token->first);
    merger.merge(best->pair, token->second);
    if (vocabulary.merges.size() % kProgressInterval == 0 && on_progress &&
        !on_progress(double(vocabulary.tokens.size() - 256) / double(n_normal - 256))) {
      return make_error(ErrorCode::kInterrupted, "stopped while merges were learned");
    }
  }
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  for (const std::string& token : special) {
    if (token == plan.bos) vocabulary.bos_id = int32_t(vocabulary.tokens.size());
    if (token == plan.eos) vocabulary.eos_id = int32_t(vocabulary.tokens.size());
    vocabulary.tokens.push_back(token);
    vocabulary.types.push_back(TokenType::kControl);
  }
  vocabulary.add_bos = vocabulary.bos_id.has_value();
  if (vocabulary.eos_id) vocabulary.stop_ids.push_back(*vocabulary.eos_id);
  BN_RETURN_IF_ERROR(check_vocabulary(vocabulary, "the new vocabulary"));
  return vocabulary;
}

Result<TokenizerTrainingReport> train_tokenizer(const TokenizerTrainingOptions& options) {
  BN_RETURN_IF_ERROR(check_plan(options.plan));
  BN_ASSIGN_OR_RETURN(Corpus corpus, Corpus::open(options.inputs, options.corpus));
  // Counting and merging take about as long as each other.
  const auto half = [&](double begin) -> std::function<bool(double)> {
    if (!options.on_progress) return {};
    return [&options, begin](double done) { return options.on_progress(begin + done / 2); };
  };
  TokenizerTrainingReport report;
  report.notices = corpus.notices();
  BN_ASSIGN_OR_RETURN(const WordCounts counts, count_words(corpus, options.plan.pre, options.n_threads, half(0)));
  if (counts.words.empty()) return invalid_input("the input holds no text to learn a vocabulary from");
  report.text_bytes = counts.text_bytes;
  report.n_words = counts.words.size();
  PairMerger merger(counts.words, std::span<const int32_t, 256>(alphabet_ids()));
  BN_ASSIGN_OR_RETURN(report.vocabulary, learn_vocabulary(options.plan, merger, half(0.5), report.notices));
  report.n_tokens = merger.n_symbols();
  return report;
}

}  // namespace bitnet
