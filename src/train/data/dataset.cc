#include "train/data/dataset.h"

#include "tokenizer/unicode.h"
#include "train/data/shuffle.h"

#include <algorithm>

namespace bitnet {

Result<Dataset> Dataset::open(const std::string& folder) {
  Dataset dataset;
  dataset.folder_ = folder;
  BN_ASSIGN_OR_RETURN(dataset.info_, read_dataset_info(folder));
  for (const Split split : {Split::kTrain, Split::kValid}) {
    uint64_t end = 0;
    for (const DatasetInfo::ShardEntry& entry : dataset.info_.shards[size_t(split)]) {
      BN_ASSIGN_OR_RETURN(Shard shard, Shard::open(folder + "/" + entry.file));
      if (shard.header() != entry.header) {
        return invalid_input(
            "{}: is not the shard that dataset.json lists ({} {}, {} tokens): files of two datasets "
            "are mixed, or one was made anew",
            shard.name(), split_name(split), entry.header.index, entry.header.n_tokens);
      }
      end += shard.header().n_tokens;
      dataset.shards_[size_t(split)].push_back(std::move(shard));
      dataset.ends_[size_t(split)].push_back(end);
    }
  }
  return dataset;
}

int64_t Dataset::n_sequences(Split split, int64_t length) const {
  const int64_t n = n_tokens(split);
  return length < 2 || n < length ? 0 : (n - 1) / (length - 1);
}

Status Dataset::sequence(Split split, uint64_t seed, uint64_t index, std::span<int32_t> out,
                         std::span<uint8_t> counted) const {
  const uint64_t n = uint64_t(n_tokens(split)), length = out.size();
  if (length < 2) return invalid_argument("{}: sequences of {} token(s), expected at least 2", folder_, length);
  if (n < length) {
    Error error =
        invalid_input("{}: the {} split has {} tokens, a sequence takes {}", folder_, split_name(split), n, length);
    error.suggestion = "prepare more text, or train with a shorter context";
    return error;
  }
  const uint64_t n_sequences = (n - 1) / (length - 1);
  if (split == Split::kValid) return read_ring(split, index % n_sequences * (length - 1), out, counted);
  const uint64_t epoch = index / n_sequences;
  const uint64_t start = CounterRng(seed, epoch).bits(~uint64_t{0}) % n;
  const uint64_t place = Permutation(n_sequences, seed, epoch)(index % n_sequences);
  return read_ring(split, (start + place * (length - 1)) % n, out, counted);
}

Status Dataset::read_ring(Split split, uint64_t first, std::span<int32_t> out, std::span<uint8_t> counted) const {
  const std::vector<uint64_t>& ends = ends_[size_t(split)];
  for (std::span<int32_t> rest = out; !rest.empty();) {
    const size_t i = size_t(std::upper_bound(ends.begin(), ends.end(), first) - ends.begin());
    const uint64_t begin = i == 0 ? 0 : ends[i - 1];
    const auto part = rest.first(size_t(std::min<uint64_t>(rest.size(), ends[i] - first)));
    BN_RETURN_IF_ERROR(shards_[size_t(split)][i].read(first - begin, part));
    rest = rest.subspan(part.size());
    first = (first + part.size()) % ends.back();
  }
  if (!counted.empty()) std::fill(counted.begin(), counted.end(), uint8_t{1});
  if (!info_.marked) return ok();
  for (size_t i = 0; i < out.size(); ++i) {
    if (!counted.empty()) counted[i] = uint8_t(is_counted(out[i]));
    out[i] = id_of_marked(out[i]);
  }
  return ok();
}

Status Dataset::verify() const {
  std::vector<int32_t> ids(size_t{1} << 18);
  for (const auto& shards : shards_) {
    for (const Shard& shard : shards) {
      for (uint64_t first = 0; first < shard.header().n_tokens;) {
        const auto part = std::span(ids).first(size_t(std::min<uint64_t>(ids.size(), shard.header().n_tokens - first)));
        BN_RETURN_IF_ERROR(shard.read(first, part));
        first += part.size();
      }
    }
  }
  return ok();
}

Result<Vocabulary> Dataset::vocabulary() const {
  BN_ASSIGN_OR_RETURN(auto vocabulary, vocabulary_from_folder(folder_));
  if (!vocabulary) return invalid_input("{}: tokenizer.json is missing", folder_);
  if (int64_t(vocabulary->tokens.size()) != vocab_size()) {
    return invalid_input("{}: tokenizer.json has {} tokens, dataset.json says {}", folder_, vocabulary->tokens.size(),
                         vocab_size());
  }
  return *std::move(vocabulary);
}

Vocabulary byte_vocabulary() {
  Vocabulary vocabulary;
  vocabulary.pre = "gpt-2";
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    append_utf8(token, alphabet_from_byte(uint8_t(byte)));
    vocabulary.tokens.push_back(std::move(token));
  }
  vocabulary.types.assign(256, TokenType::kNormal);
  return vocabulary;
}

}  // namespace bitnet
