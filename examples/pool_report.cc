// pool_report: where a program's memory is, while it runs and when it should all be back.
#include "memory/buffer.h"
#include "memory/pool.h"
#include "memory/pool_vector.h"
#include "memory/profile.h"

#include <cstdio>

int main() {
  using namespace bitnet;
  configure_host_pool(Profile::kServer);  // caches that fit this machine's limit
  Pool& pool = host_pool();
  pool.set_tracking(Tracking::kFull);
  {
    const auto weights = Buffer::allocate(size_t{24} << 20);
    if (!weights) return std::fprintf(stderr, "%s", to_text(weights.error()).c_str()), int(weights.error().code);
    const PoolVector<float> activations(1 << 16, 0.5f);
    std::printf("%s\n", describe(pool.report()).c_str());
  }
  // At the end every block that is left has a site to its name.
  void* const forgotten = pool.allocate(1000);
  for (const SiteUse& leak : pool.report().sites) {
    std::printf("leak: %llu bytes in %llu blocks of %s\n", static_cast<unsigned long long>(leak.size_bytes),
                static_cast<unsigned long long>(leak.n_blocks), leak.site.c_str());
  }
  pool.release(forgotten, 1000);
  return pool.report().sites.empty() ? 0 : 1;
}
