#pragma once

#include "memory/pool.h"

namespace bitnet {

// From now on a thread of the process calls pool.decay() every decay_ms while the pool keeps anything that nobody
// wants, so that a program which waits gives back what it does not use; it sleeps while there is nothing to do. One for
// the process and its first pool, which never end; further calls change the time. False where no thread can be started.
// Thread-safe.
bool start_pool_keeper(Pool& pool, int64_t decay_ms);

}  // namespace bitnet
