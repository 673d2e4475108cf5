#include "model/weight_cache.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

namespace bitnet {
namespace {

constexpr const char* kArchitecture = "bitnet-layout";
constexpr const char* kIdentityKey = "bitnet.layout.of";
constexpr uint64_t kAlignment_bytes = 64;  // of a part: what Buffer promises

constexpr std::string_view kScales = "scales";  // of a ternary layer: whether its inputs are quantised, its scale,
                                                // and those of its groups, as float32

std::string part_name(const WeightSpec& spec, TernaryUse use, std::string_view part) {
  constexpr const char* kUses[] = {"whole", "rows", "columns"};
  return fmt::format("{}:{}:{}", spec.gguf_name, kUses[size_t(use)], part);
}

}  // namespace

Result<std::unique_ptr<WeightCache>> WeightCache::open(const Checkpoint& checkpoint, const Backend& backend,
                                                       const LoadOptions& options) {
  auto cache = std::make_unique<WeightCache>();
  if (options.cache == CacheMode::kOff || backend.layout().empty()) return cache;
  std::string path = checkpoint.path();
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  cache->path_ = fmt::format("{}.{}.cache", path, backend.layout());
  cache->identity_ =
      fmt::format("{} {}{}", backend.layout_version(), checkpoint.identity(), options.i2s_arm64 ? ", I2_S of ARM" : "");
  cache->verify_ = options.verify_checksums;
  cache->write_ = options.cache == CacheMode::kWrite;
  std::error_code error;
  if (cache->write_ || !std::filesystem::exists(cache->path_, error)) return cache;

  BN_ASSIGN_OR_RETURN(GgufFile file, GgufFile::open(cache->path_));
  BN_ASSIGN_OR_RETURN(const std::string identity, file.metadata().get_string(kIdentityKey, ""));
  if (identity != cache->identity_) {
    cache->notice_ =
        fmt::format("{} is not of this model as it is now, and not used; --cache write renews it", cache->path_);
    return cache;
  }
  BN_ASSIGN_OR_RETURN(cache->mapped_, MappedFile::map(*file.file()));
  cache->file_.emplace(std::move(file));
  BN_ASSIGN_OR_RETURN(cache->checksums_, GgufChecksums::read(*cache->file_));
  return cache;
}

Result<WeightCache::Found> WeightCache::find(const std::string& name) const {
  const StoredTensor* const tensor = file_ ? file_->find(name) : nullptr;
  if (tensor == nullptr) return Found();
  const auto bytes = mapped_->bytes().subspan(size_t(tensor->offset_bytes), size_t(tensor->size_bytes));
  if (verify_) BN_RETURN_IF_ERROR(checksums_.verify(*tensor, bytes));
  return Found(bytes);
}

Result<LayoutMemory> WeightCache::take(const std::string& name, size_t size_bytes) {
  BN_ASSIGN_OR_RETURN(const auto found, find(name));
  if (found) {
    if (found->size() != size_bytes) {
      return invalid_input("{}: {} has {} bytes, expected {}; --cache write renews the file", path_, name,
                           found->size(), size_bytes);
    }
    // Nobody writes to what is ready; the mapping is read-only.
    auto* const data = const_cast<std::byte*>(found->data());
    return LayoutMemory{Buffer::borrow(data, size_bytes), true};
  }
  BN_ASSIGN_OR_RETURN(Buffer fresh, Buffer::allocate(size_bytes));
  if (write_) {
    const std::lock_guard<std::mutex> lock(taking_);
    taken_.push_back({name, fresh.bytes()});
  }
  return LayoutMemory{std::move(fresh), false};
}

TakeMemory WeightCache::memory_of(const WeightSpec& spec, TernaryUse use) {
  if (!write_ && !file_) return {};
  return [this, spec, use](std::string_view part, size_t size_bytes) {
    return take(part_name(spec, use, part), size_bytes);
  };
}

Result<std::optional<LinearSource>> WeightCache::find_linear(const WeightSpec& spec, TernaryUse use) {
  const std::string name = part_name(spec, use, kScales);
  BN_ASSIGN_OR_RETURN(const Found found, find(name));
  if (!found) return std::optional<LinearSource>();
  std::vector<float> values(found->size() / sizeof(float));
  std::memcpy(values.data(), found->data(), values.size() * sizeof(float));
  const int64_t n_rows = spec.shape[0], n_cols = spec.shape[1], n_groups = int64_t(values.size()) - 2;
  if (n_groups < 0 || n_groups % n_rows != 0 || (n_groups > 0 && n_cols % (n_groups / n_rows) != 0)) {
    return invalid_input("{}: {} has {} values, expected 2 and as many groups in each of {} rows", path_, name,
                         values.size(), n_rows);
  }
  TernarySource weight;
  weight.use = use;
  weight.n_rows = n_rows;
  weight.n_cols = n_cols;
  weight.scales.tensor = values[1];
  if (n_groups > 0) {
    weight.scales.group_cols = n_cols / (n_groups / n_rows);
    weight.scales.groups.assign(values.begin() + 2, values.end());
  }
  weight.read_codes = [name, path = path_](int64_t, int64_t, uint8_t*) -> Status {
    return invalid_input("{}: {} has no codes; --cache write renews the file", path, name);
  };
  weight.take = memory_of(spec, use);
  LinearSource source;
  source.quantize_input = values[0] != 0;
  source.weight = std::move(weight);
  return std::optional(std::move(source));
}

bool WeightCache::has_table(const WeightSpec& spec) const {
  const std::string prefix = part_name(spec, TernaryUse::kWhole, "");
  return file_ && std::any_of(file_->tensors().begin(), file_->tensors().end(),
                              [&](const StoredTensor& tensor) { return tensor.name.starts_with(prefix); });
}

Status WeightCache::attach(const WeightSpec& spec, LinearSource& source) {
  auto* const weight = std::get_if<TernarySource>(&source.weight);
  if (!write_ || weight == nullptr) return ok();
  weight->take = memory_of(spec, weight->use);
  std::vector<float> values = {source.quantize_input ? 1.0f : 0.0f, weight->scales.tensor};
  values.insert(values.end(), weight->scales.groups.begin(), weight->scales.groups.end());
  BN_ASSIGN_OR_RETURN(LayoutMemory memory, weight->take(kScales, values.size() * sizeof(float)));
  std::memcpy(memory.bytes.data(), values.data(), memory.bytes.size_bytes());
  const std::lock_guard<std::mutex> lock(taking_);
  scales_.push_back(std::move(memory.bytes));
  return ok();
}

void WeightCache::attach(const WeightSpec& spec, FloatSource& source) {
  source.take = memory_of(spec, TernaryUse::kWhole);
}

Status WeightCache::save() {
  if (!write_) return ok();
  std::sort(taken_.begin(), taken_.end(), [](const Part& a, const Part& b) { return a.name < b.name; });
  BN_ASSIGN_OR_RETURN(GgufWriter file, GgufWriter::create(path_, kAlignment_bytes));
  BN_RETURN_IF_ERROR(file.add_metadata("general.architecture", GgufValue(std::string(kArchitecture))));
  BN_RETURN_IF_ERROR(file.add_metadata(kIdentityKey, GgufValue(identity_)));
  for (const Part& part : taken_) {
    BN_RETURN_IF_ERROR(file.add_tensor(part.name, DType::kI8, {int64_t(part.bytes.size())}));
  }
  BN_RETURN_IF_ERROR(file.add_checksums());
  BN_RETURN_IF_ERROR(file.begin_data());
  for (const Part& part : taken_) BN_RETURN_IF_ERROR(file.write_data(part.bytes));
  BN_RETURN_IF_ERROR(file.finish());
  notice_ = fmt::format("{} holds the weights as they are laid out now; the next start maps it", path_);
  return ok();
}

}  // namespace bitnet
