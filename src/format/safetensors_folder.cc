#include "format/json.h"
#include "format/safetensors.h"
#include "format/text.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <new>
#include <system_error>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxIndex_bytes = uint64_t{64} << 20;
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

// Name of the shard -> names of the tensors that the index looks for in it.
using ShardMap = std::map<std::string, std::vector<std::string>>;

Result<ShardMap> read_index(const std::string& path) {
  BN_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxIndex_bytes));
  BN_ASSIGN_OR_RETURN(const Json index, parse_json(text, path));
  const auto weight_map = index.is_object() ? index.find("weight_map") : index.end();
  if (weight_map == index.end() || !weight_map->is_object()) {
    return invalid_input("{}: \"weight_map\" is missing or not an object", path);
  }
  ShardMap shards;
  for (const auto& [tensor, shard] : weight_map->items()) {
    if (!shard.is_string()) {
      return invalid_input("{}: \"weight_map\" gives no file name for tensor {}", path, quote_name(tensor));
    }
    shards[shard.get<std::string>()].push_back(tensor);
  }
  return shards;
}

// A name from an index must be a plain file name in the folder. A link may lead within the folder, or as in a Hugging
// Face cache (MODEL/snapshots/REVISION/shard -> MODEL/blobs/HASH) to the blobs of the same model, and nowhere else.
Status check_shard(const fs::path& folder, const std::string& shard, const std::string& index) {
  const bool plain = !shard.empty() && shard != "." && shard != ".." && shard.find('/') == std::string::npos &&
                     shard.find('\\') == std::string::npos && shard.find('\0') == std::string::npos;
  if (!plain) {
    return invalid_input("{}: \"weight_map\" names the file {}, expected a name without a path", index,
                         quote_name(shard));
  }
  std::error_code error;
  const fs::path home = fs::canonical(folder, error);
  if (error) return invalid_input("{}: cannot be resolved: {}", folder.string(), error.message());
  const fs::path target = fs::canonical(folder / shard, error);
  if (error) {
    return invalid_input("{}: \"weight_map\" names the file {}, which cannot be opened: {}", index, quote_name(shard),
                         error.message());
  }
  const bool in_cache = home.parent_path().filename() == "snapshots" &&
                        target.parent_path() == home.parent_path().parent_path() / "blobs";
  if (target.parent_path() != home && !in_cache) {
    return invalid_input("{}: \"weight_map\" names the file {}, which is a link to {}, outside the folder", index,
                         quote_name(shard), quote_name(target.string()));
  }
  return ok();
}

}  // namespace

Result<SafetensorsFolder> SafetensorsFolder::open(const std::string& folder) try {
  SafetensorsFolder result;
  const fs::path root(folder);
  const std::string single = (root / kSingleFile).string(), index = (root / kIndexFile).string();
  std::error_code error;
  if (!fs::is_directory(root, error)) return invalid_input("{}: is not a folder", folder);
  if (fs::exists(root / kSingleFile, error)) {
    BN_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(single));
    result.files_.push_back(std::make_unique<SafetensorsFile>(std::move(file)));
  } else if (fs::exists(root / kIndexFile, error)) {
    BN_ASSIGN_OR_RETURN(const ShardMap shards, read_index(index));
    for (const auto& [shard, tensors] : shards) {
      BN_RETURN_IF_ERROR(check_shard(root, shard, index));
      BN_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open((root / shard).string()));
      for (const std::string& tensor : tensors) {
        if (file.find(tensor) == nullptr) {
          return invalid_input("{}: \"weight_map\" says that tensor {} is in {}, which does not have it", index,
                               quote_name(tensor), quote_name(shard));
        }
      }
      result.files_.push_back(std::make_unique<SafetensorsFile>(std::move(file)));
    }
  } else {
    return invalid_input("{}: has neither {} nor {}", folder, kSingleFile, kIndexFile);
  }
  for (const auto& file : result.files_) {
    for (const StoredTensor& tensor : file->tensors()) result.entries_.push_back({file.get(), &tensor});
  }
  auto& entries = result.entries_;
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.tensor->name < b.tensor->name; });
  for (size_t i = 1; i < entries.size(); ++i) {
    if (entries[i - 1].tensor->name == entries[i].tensor->name) {
      return invalid_input("{}: the tensor {} is both in {} and in {}", folder, quote_name(entries[i].tensor->name),
                           entries[i - 1].file->name(), entries[i].file->name());
    }
  }
  return result;
} catch (const std::bad_alloc&) {
  return make_error(ErrorCode::kResource, "{}: not enough memory for its tensors' names", folder);
}

const SafetensorsFolder::Entry* SafetensorsFolder::find(std::string_view tensor) const {
  const auto place =
      std::lower_bound(entries_.begin(), entries_.end(), tensor,
                       [](const Entry& entry, std::string_view name) { return entry.tensor->name < name; });
  return place != entries_.end() && place->tensor->name == tensor ? &*place : nullptr;
}

uint64_t SafetensorsFolder::size_bytes() const {
  uint64_t sum = 0;
  for (const auto& file : files_) sum += file->size_bytes();
  return sum;
}

}  // namespace bitnet
