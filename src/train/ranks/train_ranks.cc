#include "train/ranks/train_ranks.h"

#include <numeric>

namespace bitnet {

Result<TrainRanks> join_ranks(std::string_view device, const Environment& environment) {
  TrainRanks ranks;
  ranks.devices = {std::string(device)};
  const bool is_cuda = device == "cuda" || device.starts_with("cuda:");
  const bool several = is_cuda && device.find(',') != std::string_view::npos;
  BN_ASSIGN_OR_RETURN(const std::optional<RankPlace> place, find_rank_place(environment));
  if (place) {
    if (!is_cuda || several) {
      return invalid_argument("device is \"{}\": of {} processes each trains on one GPU, expected cuda or cuda:N",
                              device, place->n_ranks);
    }
    if (device == "cuda") ranks.devices = {fmt::format("cuda:{}", place->local_rank)};
    ranks.first = place->rank;
    ranks.n = place->n_ranks;
    BN_ASSIGN_OR_RETURN(ranks.peers, Peers::join(*place));
  } else if (several) {
    ranks.devices.clear();
    for (std::string_view rest = device.substr(5);;) {
      const size_t comma = rest.find(',');
      ranks.devices.push_back(fmt::format("cuda:{}", rest.substr(0, comma)));
      for (size_t i = 0; i + 1 < ranks.devices.size(); ++i) {
        if (ranks.devices[i] == ranks.devices.back()) {
          return invalid_argument("device \"{}\" names GPU {} twice", device, rest.substr(0, comma));
        }
      }
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
    ranks.n = int(ranks.devices.size());
  }
  return ranks;
}

Result<RankShare> share_step(int64_t batch, int64_t accumulation, int n_ranks) {
  const int64_t by_parts = std::gcd(accumulation, int64_t{n_ranks}), by_batch = n_ranks / by_parts;
  if (batch % by_batch != 0) {
    return invalid_argument(
        "batch is {} and accumulation {}: the {} sequences of a step cannot be shared evenly among {} ranks", batch,
        accumulation, batch * accumulation, n_ranks);
  }
  return RankShare{batch / by_batch, accumulation / by_parts};
}

}  // namespace bitnet
