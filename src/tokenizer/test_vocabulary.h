#pragma once

#include "tokenizer/vocabulary.h"

#include "bitnet/tokenizer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

namespace bitnet::testing_support {

// A folder that is removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "bitnet_tokenizer_XXXXXX").string();
    path_ = mkdtemp(pattern.data()) ? pattern : std::string();
    EXPECT_FALSE(path_.empty());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A byte-level vocabulary of the 256 bytes, one token a merge in order (ids 256 on), and then the special tokens.
// Texts in `merges` are bytes, not the byte-level alphabet.
Vocabulary byte_level_vocabulary(const std::string& pre, const std::vector<std::pair<std::string, std::string>>& merges,
                                 const std::vector<std::string>& special = {},
                                 const std::vector<std::string>& user_defined = {});

// A SentencePiece vocabulary: <unk> <s> </s>, the 256 byte tokens (if `bytes`), then the pieces with their scores.
Vocabulary sentencepiece_vocabulary(const std::vector<std::pair<std::string, float>>& pieces, bool bytes = true);

// Fails the test and returns an empty tokenizer's ids where there is an error.
Tokenizer must_make(Vocabulary vocabulary);
std::vector<int32_t> must_encode(const Tokenizer& tokenizer, std::string_view text, bool parse_special = false,
                                 bool add_bos = false);
std::string must_decode(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool show_special = true);

// Text number `i` of a fixed sequence: words, runs, digits, spaces and punctuation of every kind, letters of many
// scripts. Valid UTF-8 of code points that no version of Unicode will change.
std::string random_text(uint64_t i);

// FNV-1a over the numbers and their count, to compare many lists with one constant.
class Digest {
 public:
  template <class Numbers>
  void add(const Numbers& numbers) {
    add(uint64_t(numbers.size()));
    for (const auto number : numbers) add(uint64_t(number));
  }
  uint64_t value() const { return value_; }

 private:
  void add(uint64_t number) { value_ = (value_ ^ number) * 0x100000001b3u; }
  uint64_t value_ = 0xcbf29ce484222325u;
};

// BITNET_SOURCE_DIR/../shared/NAME, or empty when it is not there.
std::string shared_file(const std::string& name);

}  // namespace bitnet::testing_support
