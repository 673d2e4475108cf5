// planned_arena: the arrays of a layer in one piece of memory, those that are never wanted together on top of each
// other.
#include "memory/arena.h"

#include <array>
#include <cstdio>

int main() {
  using namespace bitnet;
  constexpr size_t kTokens = 256, kModel = 2560, kFeed = 6912;
  struct Array {
    const char* name;
    size_t n_cols;
    int32_t first_step, last_step;  // 0: attention, 1: feed-forward
  };
  constexpr std::array<Array, 6> arrays = {{{"x", kModel, 0, 1},
                                            {"q", kModel, 0, 0},
                                            {"k, v", kModel / 2, 0, 0},
                                            {"attention", kModel, 0, 0},
                                            {"gate", kFeed, 1, 1},
                                            {"up", kFeed, 1, 1}}};
  std::array<Lifetime, arrays.size()> lives;
  size_t sum_bytes = 0;
  for (size_t i = 0; i < arrays.size(); ++i) {
    lives[i] = {kTokens * arrays[i].n_cols * sizeof(float), arrays[i].first_step, arrays[i].last_step};
    sum_bytes += lives[i].size_bytes;
  }
  const ArenaPlan plan = plan_arena(lives);
  const auto memory = Buffer::allocate(plan.size_bytes);
  if (!memory) return std::fprintf(stderr, "%s", to_text(memory.error()).c_str()), int(memory.error().code);
  for (size_t i = 0; i < arrays.size(); ++i) {
    std::printf("%-10s steps %d to %d  bytes %8zu to %8zu\n", arrays[i].name, arrays[i].first_step, arrays[i].last_step,
                plan.offsets[i], plan.offsets[i] + lives[i].size_bytes);
  }
  std::printf("%zu bytes instead of %zu\n", plan.size_bytes, sum_bytes);
  return plan.size_bytes < sum_bytes ? 0 : 1;
}
