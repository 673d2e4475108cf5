#include "train/ranks/rank_place.h"

#include <charconv>
#include <cstring>

namespace bitnet {
namespace {

constexpr int kDefaultPort = 29500;
constexpr int kMaxRanks = 1 << 16;

// The names under which a launcher says where a process stands. The last two may be null.
struct Launcher {
  const char *rank, *n_ranks, *local_rank, *local_size;
};
constexpr Launcher kLaunchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
};

// `value` where the environment has no such name.
Result<int> number(const Environment& environment, const char* name, int value, int least, int most) {
  const char* const text = environment(name);
  if (text == nullptr) return value;
  const char* const end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end || value < least || value > most) {
    return invalid_argument("the environment has {}={}, expected a number from {} to {}", name, text, least, most);
  }
  return value;
}

}  // namespace

Result<std::optional<RankPlace>> find_rank_place(const Environment& environment) {
  for (const Launcher& launcher : kLaunchers) {
    if (environment(launcher.rank) == nullptr || environment(launcher.n_ranks) == nullptr) continue;
    RankPlace place;
    BN_ASSIGN_OR_RETURN(place.n_ranks, number(environment, launcher.n_ranks, 1, 1, kMaxRanks));
    BN_ASSIGN_OR_RETURN(place.rank, number(environment, launcher.rank, 0, 0, place.n_ranks - 1));
    if (place.n_ranks == 1) return std::optional<RankPlace>();
    BN_ASSIGN_OR_RETURN(const int n_local, number(environment, launcher.local_size, place.n_ranks, 1, place.n_ranks));
    BN_ASSIGN_OR_RETURN(place.local_rank, number(environment, launcher.local_rank, place.rank, 0, kMaxRanks));
    BN_ASSIGN_OR_RETURN(place.port, number(environment, "MASTER_PORT", kDefaultPort, 1, 65534));
    const char* const host = environment("MASTER_ADDR");
    if (host == nullptr && n_local < place.n_ranks) {
      return invalid_argument(
          "{} says {} processes, {} of them on this machine: MASTER_ADDR has to name the machine of rank 0",
          launcher.n_ranks, place.n_ranks, n_local);
    }
    place.host = host != nullptr ? host : "127.0.0.1";
    // torchrun itself may listen at the port that it names.
    const char* const agent = environment("TORCHELASTIC_USE_AGENT_STORE");
    if (agent != nullptr && std::strcmp(agent, "True") == 0) ++place.port;
    return std::optional(std::move(place));
  }
  return std::optional<RankPlace>();
}

}  // namespace bitnet
