#include "runtime/sampler.h"
#include "runtime/stop_matcher.h"
#include "runtime/test_models.h"

#include <atomic>
#include <cstdlib>
#include <new>

#if defined(__GNUC__) && !defined(__clang__)
// g++ 12 inlines the replaced operator delete below into library code and then misses its operator new.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace {
std::atomic<int64_t> n_allocations{0};

void* counted(size_t size_bytes, size_t align_bytes) {
  n_allocations.fetch_add(1, std::memory_order_relaxed);
  const size_t padded = (size_bytes + align_bytes - 1) / align_bytes * align_bytes;
  void* const memory = std::aligned_alloc(align_bytes, padded == 0 ? align_bytes : padded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
constexpr size_t kPlain_bytes = __STDCPP_DEFAULT_NEW_ALIGNMENT__;
}  // namespace

// For this whole test program; every other form of new and delete leads to these (the nothrow form too, but not where a
// sanitizer brings its own).
void* operator new(size_t size_bytes, const std::nothrow_t&) noexcept { return counted(size_bytes, kPlain_bytes); }
void* operator new(size_t size_bytes) { return counted(size_bytes, kPlain_bytes); }
void* operator new(size_t size_bytes, std::align_val_t align) { return counted(size_bytes, size_t(align)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace bitnet {
namespace {

TEST(Allocation, TheCounterCounts) {
  const int64_t before = n_allocations.load();
  auto value = std::make_unique<std::vector<int>>(100);
  EXPECT_EQ(n_allocations.load() - before, 2);
  EXPECT_EQ(value->size(), 100u);
}

void expect_no_allocation(int n_threads, const SamplingOptions& sampling) {
  const TinyVocabulary vocabulary;
  const Model model = load_tiny("llama-divide", vocabulary.folder());
  ASSERT_NE(model.tokenizer(), nullptr);
  Session session = new_session(model, 16, n_threads);
  Sampler sampler = *Sampler::create(sampling, model.info().vocab_size);
  StreamDecoder decoder(*model.tokenizer());
  StopMatcher stops = *StopMatcher::create({"a stop that does not come", "another"});
  ASSERT_TRUE(session.append(random_ids(20, 512)));
  size_t text_bytes = 0;
  const auto step = [&] {
    const Result<int32_t> id = sampler.sample(session.logits(), session.ids());
    ASSERT_TRUE(id);
    text_bytes += stops.push(decoder.push(*id)).size();
    ASSERT_TRUE(session.append({&*id, 1}));
  };
  for (int i = 0; i < 8; ++i) step();
  const int64_t before = n_allocations.load();
  for (int i = 0; i < 32; ++i) step();
  EXPECT_EQ(n_allocations.load() - before, 0);
  EXPECT_GT(text_bytes, 0u);
}

TEST(Allocation, NothingIsAllocatedPerGreedyToken) {
  SamplingOptions sampling;
  sampling.temperature = 0;
  expect_no_allocation(1, sampling);
}

TEST(Allocation, NothingIsAllocatedPerSampledTokenOnSeveralThreads) {
  SamplingOptions sampling;
  sampling.repeat_penalty = 1.1f;
  sampling.frequency_penalty = 0.1f;
  expect_no_allocation(3, sampling);
  sampling.top_k = 0;
  expect_no_allocation(2, sampling);
}

}  // namespace
}  // namespace bitnet
