#include "train/data/dataset.h"

#include "bitnet/tokenizer.h"

#include "base/crc32c.h"
#include "base/rng.h"
#include "train/data/shuffle.h"
#include "train/test_folder.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <thread>

namespace bitnet {
namespace {

using testing::contents_of;
using testing::expect_error;
using testing::TemporaryFolder;

TEST(Crc32c, HasThePublishedValues) {
  // RFC 3720, B.4.
  EXPECT_EQ(crc32c(std::as_bytes(std::span("123456789", 9))), 0xe3069283u);
  std::vector<std::byte> bytes(32);
  EXPECT_EQ(crc32c(bytes), 0x8a9136aau);
  for (size_t i = 0; i < 32; ++i) bytes[i] = std::byte(i);
  EXPECT_EQ(crc32c(bytes), 0x46dd794eu);
  for (size_t cut = 0; cut <= 32; ++cut) {
    EXPECT_EQ(crc32c(std::span(bytes).subspan(cut), crc32c(std::span(bytes).first(cut))), 0x46dd794eu);
  }
}

TEST(Permutation, TakesEveryValueOnce) {
  for (const uint64_t n : {1u, 2u, 3u, 4u, 5u, 16u, 17u, 100u, 1000u, 4096u, 4097u, 65537u}) {
    const Permutation permutation(n, 7, 3);
    std::vector<bool> seen(n);
    for (uint64_t i = 0; i < n; ++i) {
      const uint64_t place = permutation(i);
      ASSERT_LT(place, n);
      ASSERT_FALSE(seen[place]) << n << " " << i;
      seen[place] = true;
    }
  }
}

TEST(Permutation, LooksRandom) {
  // Of a random permutation: one fixed point, neighbours n/3 apart, no correlation of place and index.
  const uint64_t n = 10000;
  double n_fixed = 0, distance = 0, correlation = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Permutation permutation(n, seed, 0);
    for (uint64_t i = 0; i < n; ++i) {
      n_fixed += permutation(i) == i;
      distance += std::abs(double(permutation(i)) - double(permutation((i + 1) % n)));
      correlation += (double(i) / n - 0.5) * (double(permutation(i)) / n - 0.5) * 12;
    }
  }
  EXPECT_NEAR(n_fixed / 20, 1, 1);
  EXPECT_NEAR(distance / (20 * n), n / 3.0, n / 100.0);
  EXPECT_NEAR(correlation / (20 * n), 0, 0.01);
}

// A dataset of the ids 0, 1, 2, ... modulo vocab_size in shards of so many tokens.
void make_dataset(const std::string& folder, int64_t vocab_size, const std::vector<uint64_t>& train,
                  const std::vector<uint64_t>& valid) {
  DatasetInfo info;
  info.vocab_size = vocab_size;
  info.tokenizer = "numbers";
  for (const Split split : {Split::kTrain, Split::kValid}) {
    int64_t next = 0;
    for (const uint64_t n : split == Split::kTrain ? train : valid) {
      const uint32_t index = uint32_t(info.shards[size_t(split)].size());
      const std::string name = fmt::format("{}-{:05}.tokens", split_name(split), index);
      auto writer = ShardWriter::create(folder + "/" + name, uint64_t(vocab_size), split, index);
      ASSERT_TRUE(writer);
      std::vector<int32_t> ids(n);
      for (int32_t& id : ids) id = int32_t(next++ % vocab_size);
      ASSERT_TRUE(writer->write(ids));
      writer->count_document();
      const auto header = writer->finish();
      ASSERT_TRUE(header);
      info.shards[size_t(split)].push_back({name, *header});
    }
  }
  ASSERT_TRUE(write_dataset_info(folder, info));
}

Dataset open_dataset(const std::string& folder) {
  auto dataset = Dataset::open(folder);
  EXPECT_TRUE(dataset) << dataset.error().message;
  return *std::move(dataset);
}

TEST(Dataset, EveryTokenIsATargetOnceAnEpoch) {
  for (const int64_t vocab_size : {256, 1000, 100000}) {
    TemporaryFolder folder;
    make_dataset(folder.path(), vocab_size, {100, 1, 57, 43}, {41});
    const Dataset dataset = open_dataset(folder.path());
    EXPECT_EQ(dataset.n_tokens(Split::kTrain), 201);
    EXPECT_EQ(dataset.n_tokens(Split::kValid), 41);
    EXPECT_EQ(dataset.info().n_documents(Split::kTrain), 4);
    ASSERT_EQ(dataset.n_sequences(Split::kTrain, 11), 20);
    for (uint64_t epoch = 0; epoch < 3; ++epoch) {
      std::multiset<int32_t> targets;
      for (uint64_t i = 0; i < 20; ++i) {
        std::vector<int32_t> ids(11);
        ASSERT_TRUE(dataset.sequence(Split::kTrain, 5, epoch * 20 + i, ids));
        for (size_t k = 1; k < ids.size(); ++k) {
          EXPECT_EQ(ids[k], (ids[k - 1] + 1) % std::min<int64_t>(vocab_size, 201));
          targets.insert(ids[k]);
        }
      }
      EXPECT_EQ(targets.size(), 200u);
      EXPECT_EQ(std::set<int32_t>(targets.begin(), targets.end()).size(), 200u);
    }
  }
}

TEST(Dataset, TheOrderIsAPureFunctionOfSeedAndIndex) {
  TemporaryFolder folder;
  make_dataset(folder.path(), 60000, {30000, 20000}, {5000});
  const Dataset dataset = open_dataset(folder.path());
  const auto starts = [&](uint64_t seed, uint64_t begin, uint64_t end) {
    std::vector<int32_t> list;
    for (uint64_t i = begin; i < end; ++i) {
      std::vector<int32_t> ids(33);
      EXPECT_TRUE(dataset.sequence(Split::kTrain, seed, i, ids));
      list.push_back(ids[0]);
    }
    return list;
  };
  const uint64_t n = uint64_t(dataset.n_sequences(Split::kTrain, 33));
  const auto first = starts(1, 0, n), again = starts(1, 0, n), second = starts(1, n, 2 * n), other = starts(2, 0, n);
  EXPECT_EQ(first, again);
  EXPECT_NE(first, second);
  EXPECT_NE(first, other);
  EXPECT_FALSE(std::is_sorted(first.begin(), first.end()));
  EXPECT_EQ(starts(1, n - 3, n + 3)[4], second[1]);  // a place in the middle needs nothing before it
  // The stream begins elsewhere in each epoch, so sequences are cut at other places.
  EXPECT_NE(first[0] % 32, second[0] % 32);
}

TEST(Dataset, ValidationIsInTheOrderOfTheText) {
  TemporaryFolder folder;
  make_dataset(folder.path(), 60000, {100}, {70, 31});
  const Dataset dataset = open_dataset(folder.path());
  for (uint64_t index = 0; index < 20; ++index) {
    std::vector<int32_t> ids(11);
    ASSERT_TRUE(dataset.sequence(Split::kValid, index, index, ids));
    EXPECT_EQ(ids[0], int32_t(index % 10 * 10));
    EXPECT_EQ(ids[10], ids[0] + 10);
  }
}

TEST(Dataset, ThreadsReadTheSame) {
  TemporaryFolder folder;
  make_dataset(folder.path(), 300, {400000, 300000}, {100});
  const Dataset alone = open_dataset(folder.path()), shared = open_dataset(folder.path());
  std::vector<std::vector<int32_t>> expected(200, std::vector<int32_t>(129)), found = expected;
  for (size_t i = 0; i < 200; ++i) ASSERT_TRUE(alone.sequence(Split::kTrain, 3, i, expected[i]));
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < 200; i += 4) EXPECT_TRUE(shared.sequence(Split::kTrain, 3, i, found[i]));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(found, expected);
}

TEST(Dataset, RefusesSequencesThatDoNotFit) {
  TemporaryFolder folder;
  make_dataset(folder.path(), 256, {100}, {});
  const Dataset dataset = open_dataset(folder.path());
  std::vector<int32_t> ids(101);
  expect_error(dataset.sequence(Split::kTrain, 0, 0, ids), ErrorCode::kInvalidInput, "has 100 tokens");
  expect_error(dataset.sequence(Split::kValid, 0, 0, std::span(ids).first(5)), ErrorCode::kInvalidInput,
               "the valid split has 0 tokens");
  expect_error(dataset.sequence(Split::kTrain, 0, 0, std::span(ids).first(1)), ErrorCode::kInvalidArgument,
               "at least 2");
  EXPECT_TRUE(dataset.sequence(Split::kTrain, 0, 0, std::span(ids).first(100)));
}

// K8: whatever happens to a shard, some call says so, and no call gives a wrong token.
TEST(Dataset, EveryDamageIsNoticed) {
  TemporaryFolder folder;
  make_dataset(folder.path(), 300, {100}, {});
  const std::string path = folder.file("train-00000.tokens"), good = contents_of(path);
  ASSERT_EQ(good.size(), 64u + 2 * 100 + 4);
  const auto outcome = [&]() -> Status {
    BN_ASSIGN_OR_RETURN(const Dataset dataset, Dataset::open(folder.path()));
    return dataset.verify();
  };
  ASSERT_TRUE(outcome());
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = char(bad[i] ^ (1 << i % 8));
    folder.write("train-00000.tokens", bad);
    EXPECT_FALSE(outcome()) << "byte " << i;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    folder.write("train-00000.tokens", good.substr(0, size));
    EXPECT_FALSE(outcome()) << "cut to " << size;
  }
  folder.write("train-00000.tokens", good + "x");
  expect_error(outcome(), ErrorCode::kInvalidInput, "269 bytes");
  std::filesystem::remove(path);
  expect_error(outcome(), ErrorCode::kInvalidInput, "train-00000.tokens");
}

TEST(Dataset, AShardThatShrinksWhileItIsReadIsAnError) {
  TemporaryFolder folder;
  make_dataset(folder.path(), 300, {400000}, {});
  const Dataset dataset = open_dataset(folder.path());
  std::vector<int32_t> ids(100);
  ASSERT_TRUE(dataset.sequence(Split::kTrain, 0, 0, ids));
  std::filesystem::resize_file(folder.file("train-00000.tokens"), 1000);
  int n_errors = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    const Status status = dataset.sequence(Split::kTrain, 0, i, ids);
    if (status) continue;
    ++n_errors;
    expect_error(status, ErrorCode::kInvalidInput, "ends at byte");
  }
  EXPECT_GT(n_errors, 990);
}

TEST(Dataset, AnIdOutsideTheVocabularyIsAnErrorEvenWithRightChecksums) {
  TemporaryFolder folder;
  ShardHeader header;
  header.vocab_size = 1000;
  header.n_tokens = 3;
  const uint16_t ids[] = {5, 1000, 6};
  const auto data = std::as_bytes(std::span(ids));
  const uint32_t crc = crc32c(data);
  header.table_crc = crc32c(std::as_bytes(std::span(&crc, 1)));
  std::vector<std::byte> bytes = header.encode();
  bytes.insert(bytes.end(), data.begin(), data.end());
  bytes.insert(bytes.end(), std::as_bytes(std::span(&crc, 1)).begin(), std::as_bytes(std::span(&crc, 1)).end());
  const auto shard = Shard::parse(bytes, "shard");
  ASSERT_TRUE(shard) << shard.error().message;
  std::vector<int32_t> out(3);
  expect_error(shard->read(0, out), ErrorCode::kInvalidInput, "token 1 is 1000");
  EXPECT_TRUE(shard->read(2, std::span(out).first(1)));
  EXPECT_EQ(out[0], 6);
  expect_error(shard->read(2, std::span(out).first(2)), ErrorCode::kInvalidArgument, "holds 3");
}

TEST(Dataset, ShardsOfAnotherDatasetAreNoticed) {
  TemporaryFolder a, b;
  make_dataset(a.path(), 300, {500, 500}, {500});
  make_dataset(b.path(), 300, {500, 400}, {500});
  std::filesystem::copy_file(b.file("train-00001.tokens"), a.file("train-00001.tokens"),
                             std::filesystem::copy_options::overwrite_existing);
  expect_error(Dataset::open(a.path()), ErrorCode::kInvalidInput, "mixed");
  // Two shards that changed places, and a validation shard as a training shard.
  std::filesystem::rename(b.file("train-00000.tokens"), b.file("x"));
  std::filesystem::copy_file(b.file("train-00001.tokens"), b.file("train-00000.tokens"));
  expect_error(Dataset::open(b.path()), ErrorCode::kInvalidInput, "mixed");
  std::filesystem::copy_file(b.file("valid-00000.tokens"), b.file("train-00000.tokens"),
                             std::filesystem::copy_options::overwrite_existing);
  expect_error(Dataset::open(b.path()), ErrorCode::kInvalidInput, "mixed");
}

TEST(Dataset, RefusesListsThatMakeNoSense) {
  TemporaryFolder folder;
  make_dataset(folder.path(), 300, {500}, {});
  const std::string good = contents_of(folder.file("dataset.json"));
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    folder.write("dataset.json", text);
    return Dataset::open(folder.path());
  };
  expect_error(with("bitnet-dataset", "cake"), ErrorCode::kInvalidInput, "cake");
  expect_error(with("\"version\": 1", "\"version\": 2"), ErrorCode::kUnsupported, "version 2");
  expect_error(with("train-00000.tokens", "../train-00000.tokens"), ErrorCode::kInvalidInput, "in the folder");
  expect_error(with("\"n_tokens\": 500", "\"n_tokens\": 0"), ErrorCode::kInvalidInput, "n_tokens");
  expect_error(with("\"vocab_size\": 300", "\"vocab_size\": 301"), ErrorCode::kInvalidInput, "mixed");
  expect_error(with("\"valid\"", "\"velid\""), ErrorCode::kInvalidInput, "valid");
  std::filesystem::remove(folder.file("dataset.json"));
  expect_error(Dataset::open(folder.path()), ErrorCode::kInvalidInput, "dataset.json");
}

TEST(ShardWriter, RefusesIdsOutsideTheVocabulary) {
  TemporaryFolder folder;
  auto writer = ShardWriter::create(folder.file("a"), 256, Split::kTrain, 0);
  ASSERT_TRUE(writer);
  const int32_t large = 256, negative = -1;
  expect_error(writer->write({&large, 1}), ErrorCode::kInvalidArgument, "256");
  expect_error(writer->write({&negative, 1}), ErrorCode::kInvalidArgument, "-1");
  expect_error(ShardWriter::create(folder.file("a"), 0, Split::kTrain, 0), ErrorCode::kInvalidArgument, "0 tokens");
}

TEST(ByteVocabulary, GivesEachByteItsValue) {
  const auto tokenizer = make_tokenizer(byte_vocabulary(), "byte");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  std::string text;
  for (int i = 0; i < 1000; ++i) text += char(CounterRng(1).bits(uint64_t(i)));
  const auto ids = tokenizer->encode(text);
  ASSERT_TRUE(ids);
  ASSERT_EQ(ids->size(), text.size());
  for (size_t i = 0; i < text.size(); ++i) EXPECT_EQ((*ids)[i], int32_t(uint8_t(text[i])));
}

}  // namespace
}  // namespace bitnet
