#include "memory/tracker.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <new>
#include <string_view>

namespace bitnet {
namespace {

// A path from the room on: "src/runtime/session.cc" of "/home/me/bitnet/src/runtime/session.cc".
std::string_view from_source_folder(std::string_view path) {
  for (const std::string_view folder : {"/src/", "/tools/", "/examples/", "/bench/"}) {
    if (const size_t at = path.rfind(folder); at != std::string_view::npos) return path.substr(at + 1);
  }
  return path;
}

std::string text_of(const CallSite& site) {
  if (site.file != nullptr) return fmt::format("{}:{}", from_source_folder(site.file), site.line);
  Dl_info info{};
  if (site.address == nullptr || dladdr(site.address, &info) == 0 || info.dli_fname == nullptr) return "unknown";
  const std::string_view module = info.dli_fname;
  const auto offset = static_cast<const std::byte*>(site.address) - static_cast<const std::byte*>(info.dli_fbase);
  return fmt::format("{}+{:#x}", module.substr(module.find_last_of('/') + 1), offset);
}

}  // namespace

void Tracker::add(const void* data, size_t size_bytes, const CallSite& site) noexcept {
  Shard& s = shard(data);
  const std::lock_guard<std::mutex> lock(s.mutex);
  try {
    s.notes.insert_or_assign(data, Note{size_bytes, site, level() == Tracking::kSampled});
  } catch (const std::bad_alloc&) {
    return;
  }
  filter_[slot(data)].fetch_add(1, std::memory_order_relaxed);
  n_noted_.fetch_add(1, std::memory_order_relaxed);
}

void Tracker::remove(const void* data) noexcept {
  Shard& s = shard(data);
  const std::lock_guard<std::mutex> lock(s.mutex);
  if (s.notes.erase(data) == 0) return;
  filter_[slot(data)].fetch_sub(1, std::memory_order_relaxed);
  n_noted_.fetch_sub(1, std::memory_order_relaxed);
}

std::vector<SiteUse> Tracker::sites() const {
  std::map<std::string, SiteUse> by_site;
  for (const Shard& s : shards_) {
    const std::lock_guard<std::mutex> lock(s.mutex);
    for (const auto& [data, note] : s.notes) {
      std::string site = text_of(note.site);
      SiteUse& use = by_site[site];
      use.site = std::move(site);
      // A sampled block stands for all that were taken since the one before.
      const uint64_t size_bytes = note.sampled ? std::max<uint64_t>(note.size_bytes, kSample_bytes) : note.size_bytes;
      use.n_blocks += std::max<uint64_t>(1, size_bytes / std::max<size_t>(1, note.size_bytes));
      use.size_bytes += size_bytes;
    }
  }
  std::vector<SiteUse> sites;
  for (auto& [site, use] : by_site) sites.push_back(std::move(use));
  std::stable_sort(sites.begin(), sites.end(),
                   [](const SiteUse& a, const SiteUse& b) { return a.size_bytes > b.size_bytes; });
  return sites;
}

}  // namespace bitnet
