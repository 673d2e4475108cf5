#include "memory/pool.h"
#include "memory/testing.h"
#include "runtime/test_models.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace bitnet {
namespace {

// While it lives, the pool of the process is one over a source that can refuse.
class RefusingPool {
 public:
  RefusingPool() : before_(&host_pool()), pool_({.kept_bytes = 0}, source) { host_pool_detail::pool = &pool_; }
  ~RefusingPool() { host_pool_detail::pool = before_; }
  uint64_t live_bytes() const { return pool_.report().live_bytes(); }
  TestSource source;

 private:
  Pool* before_;
  Pool pool_;
};

SessionOptions small_session() {
  SessionOptions options;
  options.n_ctx = 128;
  options.n_threads = 1;
  return options;
}

int64_t requests_of(const std::function<void()>& work) {
  RefusingPool pool;
  work();
  return pool.source.n_takes;
}

TEST(RefusedMemory, EveryRequestOfASessionEndsInAnError) {
  const Model model = load_tiny("llama-divide");
  const int64_t n_requests = requests_of([&] { EXPECT_TRUE(model.new_session(small_session())); });
  ASSERT_GE(n_requests, 3);
  for (int64_t n = 0; n < n_requests; ++n) {
    RefusingPool pool;
    pool.source.fails_at = n;
    pool.source.keeps_failing = true;
    {
      const auto session = model.new_session(small_session());
      ASSERT_FALSE(session) << "request " << n;
      EXPECT_EQ(session.error().code, ErrorCode::kResource);
      EXPECT_NE(session.error().message.find("bytes"), std::string::npos) << session.error().message;
    }
    EXPECT_EQ(pool.live_bytes(), 0u) << "request " << n;
  }
}

TEST(RefusedMemory, EveryRequestOfALoadEndsInAnError) {
  LoadOptions options;
  options.n_threads = 1;
  const std::string path = tiny_path("llama-divide");
  const int64_t n_requests = requests_of([&] { EXPECT_TRUE(Model::load(path, options)); });
  ASSERT_GE(n_requests, 1);
  for (int64_t n = 0; n < n_requests; ++n) {
    RefusingPool pool;
    pool.source.fails_at = n;
    pool.source.keeps_failing = true;
    {
      const auto model = Model::load(path, options);
      ASSERT_FALSE(model) << "request " << n;
      EXPECT_EQ(model.error().code, ErrorCode::kResource);
    }
    EXPECT_EQ(pool.live_bytes(), 0u) << "request " << n;
  }
}

// The host's pages but for requests of one size.
class TightPool {
 public:
  explicit TightPool(size_t refused_bytes) : source_(refused_bytes), before_(&host_pool()), pool_({}, source_) {
    host_pool_detail::pool = &pool_;
  }
  ~TightPool() { host_pool_detail::pool = before_; }

 private:
  struct Source : MemorySource {
    explicit Source(size_t refused)
        : MemorySource{"tight", take_pages, host_source().give_back, host_source().forget}, refused_bytes(refused) {}
    static Result<std::byte*> take_pages(const MemorySource& self, const MemoryRequest& request) {
      if (request.size_bytes == static_cast<const Source&>(self).refused_bytes) {
        return make_error(ErrorCode::kResource, "{} bytes are refused", request.size_bytes);
      }
      return host_source().take(host_source(), request);
    }
    size_t refused_bytes;
  };
  Source source_;
  Pool* before_;
  Pool pool_;
};

TEST(RefusedMemory, ASessionMakesDoWithFewerPositionsOnlyIfAsked) {
  const Model model = load_tiny("llama-divide");
  SessionOptions options;
  options.n_threads = 1;
  options.n_ctx = model.info().n_ctx_train;
  const uint64_t with_f16 = model.new_session(options)->memory_bytes();
  options.kv_type = KvType::kF32;
  const uint64_t cache_bytes = 2 * (model.new_session(options)->memory_bytes() - with_f16);
  ASSERT_GT(cache_bytes, kSmallLimit_bytes) << "the model's cache is too small for this test";
  const TightPool tight(DirectBlocks::mapped_bytes(cache_bytes));

  for (const int64_t min_n_ctx : {int64_t{0}, options.n_ctx}) {
    options.min_n_ctx = min_n_ctx;
    const auto refused = model.new_session(options);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kResource);
    EXPECT_NE(refused.error().suggestion.find("of " + std::to_string(options.n_ctx / 2)), std::string::npos)
        << to_text(refused.error());
  }
  options.min_n_ctx = 1;
  const auto session = model.new_session(options);
  ASSERT_TRUE(session) << session.error().message;
  EXPECT_EQ(session->n_ctx(), options.n_ctx / 2);

  options.min_n_ctx = options.n_ctx + 1;
  EXPECT_EQ(model.new_session(options).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace bitnet
