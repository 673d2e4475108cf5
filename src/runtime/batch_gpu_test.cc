#include "runtime/batch.h"

#include "runtime/test_gpu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

// Sequences that take their steps together: each has the logits that it has alone, which are the CPU's.
namespace bitnet {
namespace {

using BatchOnGpu = OnGpu;

std::vector<float> rows_of(Batch& batch, std::span<const Batch::Part> parts, int64_t n_best, int64_t vocab_size) {
  std::vector<float> logits(parts.size() * size_t(vocab_size));
  const Status status = batch.step(parts, n_best, {logits.data(), int64_t(parts.size()), vocab_size});
  EXPECT_TRUE(status) << (status ? "" : status.error().message);
  return logits;
}

// Every number of sequences up to 70 and some more, each at a position of its own, all types of cache.
TEST_F(BatchOnGpu, EverySequenceHasTheLogitsOfTheCpu) {
  for (const char* name : {"bitnet-packed", "bitnet-odd-shapes", "llama-divide", "certified"}) {
    const bool certified = std::string_view(name) == "certified";
    const std::string path = tiny_path(certified ? "bitnet-odd-shapes" : name);
    const auto cpu = load_on(path, "cpu");
    const auto gpu = load_on(path, "cuda", certified ? HeadMode::kCertified : HeadMode::kAuto);
    ASSERT_TRUE(cpu && gpu);
    const int64_t vocab_size = cpu->info().vocab_size;
    for (const KvType kv_type : {KvType::kF16, KvType::kF32, KvType::kQ8_0, KvType::kInt8}) {
      // Texts that the CPU has gone through once: the logits after each token.
      constexpr int kTexts = 5, kTokens = 100;
      std::vector<std::vector<int32_t>> texts;
      std::vector<std::vector<float>> expected;
      bool fits = true;
      for (int i = 0; i < kTexts; ++i) {
        texts.push_back(random_ids(kTokens, vocab_size, uint64_t(i + 1)));
        SessionOptions options;
        options.n_ctx = kTokens;
        options.kv_type = kv_type;
        auto session = cpu->new_session(options);
        if (!session) fits = false;
        if (!fits) break;
        std::vector<float> all;
        ASSERT_TRUE(session->append(texts.back(), [&](int64_t, std::span<const float> logits) {
          all.insert(all.end(), logits.begin(), logits.end());
          return true;
        }));
        expected.push_back(std::move(all));
      }
      if (!fits) continue;
      for (const int n : {1, 2, 3, 7, 8, 9, 16, 17, 31, 33, 64, 65, 128, 150}) {
        BatchOptions options;
        options.max_sequences = n;
        options.n_ctx = kTokens;
        options.kv_type = kv_type;
        auto batch = Batch::create(*gpu, options);
        ASSERT_TRUE(batch) << batch.error().message;
        std::vector<int32_t> sequences;
        for (int i = 0; i < n; ++i) sequences.push_back(*batch->open());
        const int n_steps = n < 10 ? kTokens : 70;
        std::vector<BestToken> best(static_cast<size_t>(n));
        for (int step = 0; step < n_steps; ++step) {
          // Sequence i waits for i % 3 steps, so that they stand at different positions.
          std::vector<Batch::Part> parts;
          for (int i = 0; i < n; ++i) {
            if (step < i % 3) continue;
            parts.push_back({sequences[size_t(i)], {&texts[size_t(i % kTexts)][size_t(step - i % 3)], 1}});
          }
          const bool whole = step % 16 == 15;
          std::vector<float> logits;
          if (whole) {
            logits = rows_of(*batch, parts, step % 32 == 15 ? 0 : 3, vocab_size);
          } else {
            ASSERT_TRUE(batch->step(parts, std::span(best).first(parts.size())));
          }
          for (size_t row = 0; row < parts.size(); ++row) {
            const int i = parts[row].sequence;
            const float* const want = expected[size_t(i % kTexts)].data() + int64_t(step - i % 3) * vocab_size;
            const int64_t id = std::max_element(want, want + vocab_size) - want;
            if (!whole) {
              ASSERT_EQ(best[row].id, id) << name << ", " << n << " sequences, step " << step << ", row " << row;
              ASSERT_EQ(best[row].logit, want[id])
                  << name << ", " << n << " sequences, step " << step << ", row " << row;
            } else {
              const float* const found = logits.data() + int64_t(row) * vocab_size;
              std::vector<float> sorted(want, want + vocab_size);
              std::partial_sort(sorted.begin(), sorted.begin() + 3, sorted.end(), std::greater<>());
              for (int64_t j = 0; j < vocab_size; ++j) {
                const bool wanted = step % 32 == 15 || want[j] >= sorted[2];
                if (!wanted && found[j] == -std::numeric_limits<float>::infinity()) continue;
                ASSERT_EQ(found[j], want[j]) << name << ", " << n << " sequences, step " << step << ", row " << row;
              }
            }
          }
        }
      }
    }
  }
}

// Prompts beside single tokens, pages that come back, and sequences that come and go.
void share_steps(KvType kv_type) {
  const std::string path = tiny_path("bitnet-packed");
  const auto cpu = load_on(path, "cpu"), gpu = load_on(path, "cuda");
  ASSERT_TRUE(cpu && gpu);
  const int64_t vocab_size = cpu->info().vocab_size;
  BatchOptions options;
  options.max_sequences = 6;
  options.n_ctx = 200;
  options.n_pages = 12;
  options.max_tokens = 256;
  options.kv_type = kv_type;
  auto batch = Batch::create(*gpu, options);
  ASSERT_TRUE(batch) << batch.error().message;
  std::map<int32_t, Session> alone;
  const CounterRng rng(11);
  uint64_t counter = 0;
  const auto random = [&](uint64_t n) { return rng.bits(counter++) % n; };
  for (int step = 0; step < 60; ++step) {
    if (alone.size() < 6 && random(2) == 0) {
      const int32_t sequence = *batch->open();
      alone.emplace(sequence, new_session(*cpu, 256, 1, kv_type, 200));
    }
    std::vector<std::vector<int32_t>> ids;
    std::vector<Batch::Part> parts;
    ids.reserve(6);
    int64_t n_pages = 0;
    for (auto& [sequence, session] : alone) {
      if (random(4) == 0) continue;
      const int64_t n = std::min<int64_t>(random(3) == 0 ? 1 + int64_t(random(40)) : 1, 200 - session.n_past());
      const int64_t more = Batch::pages_of(session.n_past() + n) - Batch::pages_of(session.n_past());
      if (n == 0 || n_pages + more > batch->n_free_pages()) continue;
      n_pages += more;
      ids.push_back(random_ids(n, vocab_size, counter++));
      parts.push_back({sequence, ids.back()});
    }
    if (parts.empty()) continue;
    const std::vector<float> logits = rows_of(*batch, parts, 0, vocab_size);
    for (size_t row = 0; row < parts.size(); ++row) {
      Session& session = alone.at(parts[row].sequence);
      ASSERT_TRUE(session.append(parts[row].ids));
      const std::vector<float> found(logits.begin() + int64_t(row) * vocab_size,
                                     logits.begin() + int64_t(row + 1) * vocab_size);
      ASSERT_EQ(copy(session.logits()), found) << "step " << step << ", row " << row;
      ASSERT_EQ(batch->n_past(parts[row].sequence), session.n_past());
    }
    if (!alone.empty() && random(8) == 0) {
      batch->close(alone.begin()->first);
      alone.erase(alone.begin());
    }
  }
  for (const auto& [sequence, session] : alone) batch->close(sequence);
  EXPECT_EQ(batch->n_free_pages(), 12);
}

// The types whose prompts have the CPU's bits.
TEST_F(BatchOnGpu, PromptsAndTokensShareStepsWithAFloatCache) { share_steps(KvType::kF32); }
TEST_F(BatchOnGpu, PromptsAndTokensShareStepsWithAnInt8Cache) { share_steps(KvType::kInt8); }

TEST_F(BatchOnGpu, AStepThatDoesNotFitChangesNothing) {
  const auto gpu = load_on(tiny_path("bitnet-packed"), "cuda");
  ASSERT_TRUE(gpu);
  BatchOptions options;
  options.max_sequences = 2;
  options.n_ctx = 128;
  options.n_pages = 2;
  options.max_tokens = 128;
  auto batch = Batch::create(*gpu, options);
  ASSERT_TRUE(batch);
  const int32_t a = *batch->open(), b = *batch->open();
  EXPECT_EQ(batch->open().error().code, ErrorCode::kResource);
  const std::vector<int32_t> ids = random_ids(65, gpu->info().vocab_size);
  std::vector<BestToken> best(2);
  const Batch::Part first[] = {{a, ids}};
  ASSERT_TRUE(batch->step(first, best));
  EXPECT_EQ(batch->n_free_pages(), 0);
  const Batch::Part none[] = {{b, std::span(ids).first(1)}};
  EXPECT_EQ(batch->step(none, best).error().code, ErrorCode::kResource);
  const Batch::Part twice[] = {{a, std::span(ids).first(1)}, {a, std::span(ids).first(1)}};
  EXPECT_EQ(batch->step(twice, best).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(batch->n_past(a), 65);
  EXPECT_EQ(batch->n_past(b), 0);
  batch->close(a);
  EXPECT_EQ(batch->n_free_pages(), 2);
  EXPECT_TRUE(batch->step(none, best));
}

}  // namespace
}  // namespace bitnet
