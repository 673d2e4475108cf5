#pragma once

#include <memory>
#include <string>

namespace bitnet::cli {

// What a machine can do at this moment, measured; 0 where it could not be.
struct MachineLimits {
  double read_gb_per_s = 0;    // from memory, all threads together
  double int8_gops_per_s = 0;  // multiplications and additions of 8-bit dot products from registers
  double copy_gb_per_s = 0;    // a device's own memory, read and written
};

// Measures in a child process, so that its buffer counts in no memory figure of this one and measurements can stand
// between the runs that they are compared with: a shared machine's speed changes from minute to minute.
class MachineMeter {
 public:
  MachineMeter();  // starts the child; make it before any thread
  ~MachineMeter();
  MachineMeter(const MachineMeter&) = delete;
  MachineMeter& operator=(const MachineMeter&) = delete;
  MachineLimits measure(int n_threads);

 private:
  int to_child_ = -1, from_child_ = -1, child_ = -1;
};

std::string cpu_name();
// Largest resident size of this process so far.
unsigned long long peak_rss_bytes();

}  // namespace bitnet::cli
