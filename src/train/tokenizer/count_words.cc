#include "train/tokenizer/count_words.h"

#include "base/thread_pool.h"
#include "tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <atomic>
#include <string_view>
#include <unordered_map>

namespace bitnet {
namespace {

constexpr size_t kMaxWords = 50'000'000;
constexpr size_t kBatch_bytes = size_t{4} << 20;  // a thread

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using Counts = std::unordered_map<std::string, int64_t, TextHash, std::equal_to<>>;

void add_words(const PreTokenizer& pre_tokenizer, std::string_view text, Counts& counts) {
  pre_tokenizer.for_each_piece(text.data(), 0, text.size(), [&](size_t begin, size_t end) {
    const std::string_view word = text.substr(begin, end - begin);
    const auto found = counts.find(word);
    if (found != counts.end()) {
      ++found->second;
    } else {
      counts.emplace(word, 1);
    }
    return true;
  });
}

Result<std::vector<TextChunk>> next_batch(Corpus& corpus, size_t n_bytes) {
  std::vector<TextChunk> batch;
  for (size_t n = 0; n < n_bytes;) {
    BN_ASSIGN_OR_RETURN(auto chunk, corpus.next());
    if (!chunk) break;
    n += chunk->text.size();
    batch.push_back(*std::move(chunk));
  }
  return batch;
}

}  // namespace

Result<WordCounts> count_words(Corpus& corpus, const std::string& pre, int n_threads,
                               const std::function<bool(double done)>& on_progress) {
  const auto* known = PreTokenizer::find(pre);
  if (known == nullptr) {
    return invalid_argument("there is no pre-tokenizer {}; there are {}", pre, PreTokenizer::known_names());
  }
  const PreTokenizer pre_tokenizer(known->rules);
  ThreadPool pool(n_threads);
  std::vector<Counts> counts{size_t(n_threads)};  // one a thread
  WordCounts result;
  for (;;) {
    BN_ASSIGN_OR_RETURN(const auto batch, next_batch(corpus, kBatch_bytes * size_t(n_threads)));
    if (batch.empty()) break;
    std::atomic<size_t> next{0};
    pool.run([&](int thread) {
      for (size_t i = next++; i < batch.size(); i = next++) {
        add_words(pre_tokenizer, batch[i].text, counts[size_t(thread)]);
      }
    });
    size_t n_words = 0;
    for (const TextChunk& chunk : batch) result.text_bytes += chunk.text.size();
    for (const Counts& part : counts) n_words += part.size();
    if (n_words > kMaxWords) {
      Error error = make_error(ErrorCode::kResource, "the text holds more than {} different words", kMaxWords);
      error.suggestion = "a part of the text is enough to learn a vocabulary from";
      return error;
    }
    const double done = double(corpus.position_bytes()) / double(std::max<uint64_t>(corpus.size_bytes(), 1));
    if (on_progress && !on_progress(done))
      return make_error(ErrorCode::kInterrupted, "stopped while words were counted");
  }
  for (size_t i = 1; i < counts.size(); ++i) {
    for (const auto& [word, count] : counts[i]) counts[0][word] += count;
    counts[i].clear();
  }
  result.words.reserve(counts[0].size());
  for (const auto& [word, count] : counts[0]) result.words.push_back({word, count});
  std::sort(result.words.begin(), result.words.end(),
            [](const CountedWord& a, const CountedWord& b) { return a.bytes < b.bytes; });
  return result;
}

}  // namespace bitnet
