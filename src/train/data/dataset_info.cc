// dataset.json: which shards make a dataset.
#include "base/file.h"
#include "format/json.h"
#include "format/text.h"
#include "train/data/dataset.h"

namespace bitnet {
namespace {

constexpr const char* kFileName = "dataset.json";
constexpr const char* kFormat = "bitnet-dataset";
constexpr int64_t kVersion = 1;
constexpr int64_t kMaxTokens = int64_t{1} << 60;

Json shards_as_json(const std::vector<DatasetInfo::ShardEntry>& shards) {
  Json list = Json::array();
  for (const auto& [file, header] : shards) {
    list.push_back({{"file", file},
                    {"n_tokens", header.n_tokens},
                    {"n_documents", header.n_documents},
                    {"element_bytes", header.element_bytes},
                    {"table_crc", header.table_crc}});
  }
  return list;
}

// A shard's file lies in the folder itself.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

Result<DatasetInfo::ShardEntry> shard_from_json(const Json& json, const std::string& name) {
  if (!json.is_object()) return invalid_input("{}: a shard is not an object", name);
  DatasetInfo::ShardEntry entry;
  BN_ASSIGN_OR_RETURN(entry.file, json_string(json, "file", name));
  if (!is_plain_name(entry.file)) {
    return invalid_input("{}: the shard {} is not the name of a file in the folder", name, quote_name(entry.file));
  }
  BN_ASSIGN_OR_RETURN(const int64_t n_tokens, json_int(json, "n_tokens", name, 1, kMaxTokens));
  BN_ASSIGN_OR_RETURN(const int64_t n_documents, json_int(json, "n_documents", name, 0, kMaxTokens));
  BN_ASSIGN_OR_RETURN(const int64_t element_bytes, json_int(json, "element_bytes", name, 1, 4));
  BN_ASSIGN_OR_RETURN(const int64_t table_crc, json_int(json, "table_crc", name, 0, UINT32_MAX));
  entry.header.n_tokens = uint64_t(n_tokens);
  entry.header.n_documents = uint64_t(n_documents);
  entry.header.element_bytes = uint32_t(element_bytes);
  entry.header.table_crc = uint32_t(table_crc);
  return entry;
}

}  // namespace

int64_t DatasetInfo::n_tokens(Split split) const {
  uint64_t n = 0;
  for (const ShardEntry& shard : shards[size_t(split)]) n += shard.header.n_tokens;
  return int64_t(n);
}
int64_t DatasetInfo::n_documents(Split split) const {
  uint64_t n = 0;
  for (const ShardEntry& shard : shards[size_t(split)]) n += shard.header.n_documents;
  return int64_t(n);
}

Status write_dataset_info(const std::string& folder, const DatasetInfo& info) {
  Json root = {{"format", kFormat},
               {"version", kVersion},
               {"vocab_size", info.vocab_size},
               {"tokenizer", info.tokenizer},
               {"train", shards_as_json(info.shards[0])},
               {"valid", shards_as_json(info.shards[1])}};
  if (info.marked) root["marked"] = true;
  return write_file_atomically(folder + "/" + kFileName, root.dump(1) + "\n");
}

Result<DatasetInfo> read_dataset_info(const std::string& folder) {
  const std::string name = folder + "/" + kFileName;
  auto text = read_file(name, JsonLimits{}.max_bytes);
  if (!text) {
    text.error().suggestion = "bitnet train prepare TEXT --tokenizer byte --out FOLDER";
    return std::move(text.error());
  }
  BN_ASSIGN_OR_RETURN(const Json root, parse_json(*text, name));
  if (!root.is_object()) return invalid_input("{}: not a JSON object", name);
  BN_ASSIGN_OR_RETURN(const std::string format, json_string(root, "format", name));
  if (format != kFormat) return invalid_input("{}: describes {}, expected {}", name, quote_name(format), kFormat);
  BN_ASSIGN_OR_RETURN(const int64_t version, json_int(root, "version", name, 0, INT64_MAX));
  if (version != kVersion) {
    return unsupported("{}: is of version {}, this program reads version {}", name, version, kVersion);
  }
  DatasetInfo info;
  BN_ASSIGN_OR_RETURN(info.vocab_size, json_int(root, "vocab_size", name, 1, int64_t(ShardHeader::kMaxVocabSize)));
  BN_ASSIGN_OR_RETURN(info.tokenizer, json_string(root, "tokenizer", name));
  if (const auto marked = root.find("marked"); marked != root.end()) {
    if (!marked->is_boolean()) return invalid_input("{}: \"marked\" is neither true nor false", name);
    info.marked = marked->get<bool>();
  }
  if (info.n_elements() > int64_t(ShardHeader::kMaxVocabSize)) {
    return unsupported("{}: a marked vocabulary of {} tokens is too large", name, info.vocab_size);
  }
  int64_t n_tokens = 0;
  for (const Split split : {Split::kTrain, Split::kValid}) {
    const auto list = root.find(split_name(split));
    if (list == root.end() || !list->is_array()) {
      return invalid_input("{}: \"{}\" is not a list of shards", name, split_name(split));
    }
    for (const Json& json : *list) {
      BN_ASSIGN_OR_RETURN(DatasetInfo::ShardEntry entry, shard_from_json(json, name));
      entry.header.vocab_size = uint64_t(info.n_elements());
      entry.header.split = split;
      entry.header.index = uint32_t(info.shards[size_t(split)].size());
      n_tokens += int64_t(entry.header.n_tokens);
      if (n_tokens > kMaxTokens) return invalid_input("{}: lists more than {} tokens", name, kMaxTokens);
      info.shards[size_t(split)].push_back(std::move(entry));
    }
  }
  if (info.shards[0].empty()) return invalid_input("{}: lists no shard to train on", name);
  return info;
}

}  // namespace bitnet
