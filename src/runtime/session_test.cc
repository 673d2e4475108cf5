#include "runtime/test_models.h"

#include <thread>

namespace bitnet {
namespace {

using Rows = std::vector<std::vector<float>>;

Rows all_logits(Session& session, std::span<const int32_t> ids) {
  Rows rows;
  const Status status = session.append(ids, [&](int64_t, std::span<const float> logits) {
    rows.push_back(copy(logits));
    return true;
  });
  EXPECT_TRUE(status) << status.error().message;
  return rows;
}

class TinyModels : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Fixtures, TinyModels,
                         testing::Values("bitnet-packed", "bitnet-odd-shapes", "bitnet-bf16-master", "llama-divide",
                                         "llama-wide-heads"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(TinyModels, ChunksAndThreadsChangeNoBit) {
  const Model model = load_tiny(GetParam());
  const std::vector<int32_t> ids = random_ids(150, model.info().vocab_size);
  Session whole = new_session(model, 512, 1);
  const Rows expected = all_logits(whole, ids);
  ASSERT_EQ(expected.size(), ids.size());
  EXPECT_EQ(copy(whole.logits()), expected.back());
  for (const int64_t chunk : {1, 7, 32, 512}) {
    for (const int n_threads : {1, 2, 3, 5, 8}) {
      Session session = new_session(model, chunk, n_threads);
      EXPECT_TRUE(all_logits(session, ids) == expected) << "chunk " << chunk << ", " << n_threads << " threads";
      session.reset();
      ASSERT_TRUE(session.append(ids));
      EXPECT_TRUE(copy(session.logits()) == expected.back()) << "chunk " << chunk << ", " << n_threads << " threads";
    }
  }
}

TEST_P(TinyModels, WhatIsCachedEqualsWhatIsNot) {
  const Model model = load_tiny(GetParam());
  const std::vector<int32_t> ids = random_ids(100, model.info().vocab_size, 2);
  Session whole = new_session(model);
  const Rows expected = all_logits(whole, ids);
  Session session = new_session(model, 16, 2);
  for (size_t begin = 0, n = 1; begin < ids.size(); begin += n, n = n % 23 + 5) {
    const size_t end = std::min(begin + n, ids.size());
    ASSERT_TRUE(session.append(std::span(ids).subspan(begin, end - begin)));
    ASSERT_TRUE(copy(session.logits()) == expected[end - 1]) << "after " << end;
  }
}

TEST_P(TinyModels, TruncatingAndFeedingAgainEqualsAFreshStart) {
  const Model model = load_tiny(GetParam());
  const std::vector<int32_t> ids = random_ids(60, model.info().vocab_size, 3);
  const std::vector<int32_t> other = random_ids(30, model.info().vocab_size, 4);
  Session session = new_session(model, 8);
  ASSERT_TRUE(session.append(ids));
  ASSERT_TRUE(session.truncate(20));
  EXPECT_EQ(session.n_past(), 20);
  EXPECT_TRUE(session.logits().empty());
  ASSERT_TRUE(session.append(other));

  std::vector<int32_t> joined(ids.begin(), ids.begin() + 20);
  joined.insert(joined.end(), other.begin(), other.end());
  Session fresh = new_session(model);
  ASSERT_TRUE(fresh.append(joined));
  EXPECT_EQ(copy(session.logits()), copy(fresh.logits()));
  EXPECT_EQ(std::vector<int32_t>(session.ids().begin(), session.ids().end()), joined);
}

TEST_P(TinyModels, BothCacheTypesRunAndAgreeClosely) {
  const Model model = load_tiny(GetParam());
  const std::vector<int32_t> ids = random_ids(80, model.info().vocab_size, 5);
  Session f32 = new_session(model, 32, 1, KvType::kF32);
  Session f16 = new_session(model, 32, 1, KvType::kF16);
  ASSERT_TRUE(f32.append(ids));
  ASSERT_TRUE(f16.append(ids));
  double error = 0, norm = 0;
  for (size_t i = 0; i < f32.logits().size(); ++i) {
    const double difference = double(f32.logits()[i]) - double(f16.logits()[i]);
    error += difference * difference;
    norm += double(f32.logits()[i]) * double(f32.logits()[i]);
  }
  EXPECT_GT(error, 0) << "the cache type has no effect";
  // Rounding the cache moves a few int8 levels in these random models, each by a percent or so of the logits.
  EXPECT_LT(error, norm * 0.1 * 0.1);
  const ModelInfo& info = model.info();
  const uint64_t kv_bytes = 2 * uint64_t(info.n_layers * info.n_kv_heads * info.head_dim * f32.n_ctx());
  EXPECT_EQ(f32.memory_bytes() - f16.memory_bytes(), kv_bytes * 2);
}

TEST(Session, AnEmptyAppendBringsTheLogitsBack) {
  const Model model = load_tiny("bitnet-packed");
  const std::vector<int32_t> ids = random_ids(10, 512);
  Session session = new_session(model);
  ASSERT_TRUE(session.append({}));
  EXPECT_TRUE(session.logits().empty());
  ASSERT_TRUE(session.append(std::span(ids).first(6)));
  const std::vector<float> expected = copy(session.logits());
  ASSERT_TRUE(session.append(std::span(ids).subspan(6)));
  ASSERT_TRUE(session.truncate(6));
  ASSERT_TRUE(session.append({}));
  EXPECT_EQ(session.n_past(), 6);
  EXPECT_EQ(copy(session.logits()), expected);
}

TEST(Session, TheSinkSeesEveryPositionInOrder) {
  const Model model = load_tiny("bitnet-packed");
  const std::vector<int32_t> ids = random_ids(150, 512);
  Session session = new_session(model, 100);
  ASSERT_TRUE(session.append(std::span(ids).first(3)));
  int64_t expected = 3;
  ASSERT_TRUE(session.append(std::span(ids).subspan(3), [&](int64_t position, std::span<const float> logits) {
    EXPECT_EQ(position, expected++);
    EXPECT_EQ(logits.size(), 512u);
    return true;
  }));
  EXPECT_EQ(expected, 150);
}

TEST(Session, RefusesIdsOutsideTheVocabulary) {
  const Model model = load_tiny("bitnet-packed");
  Session session = new_session(model);
  ASSERT_TRUE(session.append(std::vector<int32_t>{1, 2, 3}));
  const std::vector<float> before = copy(session.logits());
  for (const int32_t bad : {-1, 512, 1 << 30}) {
    const Status status = session.append(std::vector<int32_t>{4, bad, 5});
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(status.error().message.find(std::to_string(bad)), std::string::npos) << status.error().message;
    EXPECT_NE(status.error().message.find("512 tokens"), std::string::npos) << status.error().message;
  }
  EXPECT_EQ(session.n_past(), 3);
  EXPECT_EQ(copy(session.logits()), before);
}

TEST(Session, RefusesMoreThanTheContextHoldsAndStaysUsable) {
  const Model model = load_tiny("bitnet-packed");
  Session session = new_session(model, 4, 1, KvType::kF16, 10);
  EXPECT_EQ(session.n_ctx(), 10);
  ASSERT_TRUE(session.append(random_ids(7, 512)));
  const Status status = session.append(random_ids(4, 512));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "4 tokens do not fit: the context has 10 positions, 7 of them taken");
  EXPECT_NE(status.error().suggestion.find("256"), std::string::npos);
  EXPECT_EQ(session.n_past(), 7);
  ASSERT_TRUE(session.append(random_ids(3, 512)));
  EXPECT_EQ(session.n_past(), 10);
  EXPECT_FALSE(session.append(random_ids(1, 512)));
}

TEST(Session, RefusesOptionsThatMakeNoSense) {
  const Model model = load_tiny("bitnet-packed");  // trained on 256 positions
  const auto message = [&](auto change) {
    SessionOptions options;
    change(options);
    const Result<Session> session = model.new_session(options);
    return session ? std::string("accepted") : session.error().message;
  };
  EXPECT_NE(message([](auto& o) { o.n_ctx = 257; }).find("257, but the model was trained for 256"), std::string::npos);
  EXPECT_EQ(message([](auto& o) { o.n_ctx = 256; }), "accepted");
  EXPECT_NE(message([](auto& o) { o.n_ctx = -1; }).find("n_ctx is -1"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.chunk = 0; }).find("chunk is 0"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.n_threads = -1; }).find("n_threads is -1"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.n_threads = 100000; }).find("n_threads is 100000"), std::string::npos);
  EXPECT_EQ(new_session(model).n_ctx(), 256);
}

TEST(Session, TruncateRefusesWhatIsNotThere) {
  Session session = new_session(load_tiny("bitnet-packed"));
  ASSERT_TRUE(session.append(random_ids(5, 512)));
  EXPECT_FALSE(session.truncate(-1));
  EXPECT_FALSE(session.truncate(6));
  EXPECT_EQ(session.n_past(), 5);
  EXPECT_FALSE(session.logits().empty());
}

TEST(Session, AStopRequestInterruptsOneAppendAndChangesNothing) {
  const Model model = load_tiny("bitnet-packed");
  const std::vector<int32_t> ids = random_ids(40, 512);
  Session session = new_session(model, 4);
  ASSERT_TRUE(session.append(std::span(ids).first(3)));
  session.request_stop();
  const Status stopped = session.append(std::span(ids).subspan(3));
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kInterrupted);
  EXPECT_EQ(session.n_past(), 3);
  EXPECT_TRUE(session.logits().empty());
  ASSERT_TRUE(session.append(std::span(ids).subspan(3)));

  Session fresh = new_session(model);
  ASSERT_TRUE(fresh.append(ids));
  EXPECT_EQ(copy(session.logits()), copy(fresh.logits()));

  session.request_stop();
  session.clear_stop();
  EXPECT_TRUE(session.append(std::span(ids).first(1)));
}

TEST(Session, AStopRequestWhileRunningInterruptsBetweenChunks) {
  Session session = new_session(load_tiny("bitnet-packed"), 4);
  int64_t n_seen = 0;
  const Status stopped = session.append(random_ids(40, 512), [&](int64_t, std::span<const float>) {
    if (++n_seen == 6) session.request_stop();
    return true;
  });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kInterrupted);
  EXPECT_EQ(n_seen, 8);
  EXPECT_EQ(session.n_past(), 0);
}

TEST(Session, ASinkThatSaysStopEndsTheAppend) {
  Session session = new_session(load_tiny("bitnet-packed"), 16);
  int64_t n_seen = 0;
  const Status stopped =
      session.append(random_ids(40, 512), [&](int64_t, std::span<const float>) { return ++n_seen < 5; });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kInterrupted);
  EXPECT_EQ(n_seen, 5);
  EXPECT_EQ(session.n_past(), 0);
  EXPECT_TRUE(session.append(random_ids(40, 512)));
}

TEST(Session, SurvivesItsModelHandleAndAMove) {
  auto model = std::make_unique<Model>(load_tiny("bitnet-packed"));
  Session first = new_session(*model);
  model.reset();
  const std::vector<int32_t> ids = random_ids(12, 512);
  ASSERT_TRUE(first.append(std::span(ids).first(5)));
  Session second = std::move(first);
  ASSERT_TRUE(second.append(std::span(ids).subspan(5)));
  Session whole = new_session(second.model());
  ASSERT_TRUE(whole.append(ids));
  EXPECT_EQ(copy(second.logits()), copy(whole.logits()));
}

TEST(Session, SessionsOfOneModelRunAtOnce) {
  const Model model = load_tiny("bitnet-odd-shapes");
  const std::vector<int32_t> ids = random_ids(60, model.info().vocab_size, 9);
  Session alone = new_session(model);
  const Rows expected = all_logits(alone, ids);
  std::vector<std::thread> threads;
  std::vector<Rows> rows(3);
  for (size_t i = 0; i < rows.size(); ++i) {
    threads.emplace_back([&, i] {
      Session session = new_session(model, 8, int(i % 2) + 1);
      rows[i] = all_logits(session, ids);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Rows& r : rows) EXPECT_TRUE(r == expected);
}

}  // namespace
}  // namespace bitnet
