#pragma once

#include "base/result.h"

#include <functional>
#include <optional>
#include <string>

namespace bitnet {

// One process among several that train one model, each on a GPU of its own.
struct RankPlace {
  int rank = 0;
  int n_ranks = 1;
  int local_rank = 0;  // among the machine's: the GPU that is its own
  std::string host;    // of rank 0
  int port = 0;
};

// As torchrun says it (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), or mpirun of Open MPI
// (OMPI_COMM_WORLD_*) or of MPICH and its kin (PMI_*, MPI_LOCALRANKID), with 127.0.0.1 and 29500 where no address is
// given and all ranks are on one machine. Nothing where the process is alone.
using Environment = std::function<const char*(const char* name)>;  // as std::getenv
Result<std::optional<RankPlace>> find_rank_place(const Environment& environment);

}  // namespace bitnet
