#pragma once

#include "base/result.h"

#include <string>

namespace bitnet {
class Session;
}

namespace bitnet::cli {

// Ctrl-C (SIGINT) and SIGTERM. Where nothing needs to be tidied up they end the program at once with exit code 6;
// inside an InterruptScope the first one only asks for an end and the second one ends the program.
void install_interrupt_handler(const std::string& command, bool json);

class InterruptScope {
 public:
  // `session`, if given, is asked to stop; it must stay where it is while the scope lives.
  explicit InterruptScope(Session* session = nullptr);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
};

bool interrupted();
void clear_interrupt();
// Waits until `fd` can be read or has ended. False: a signal came, be it before the call.
bool wait_for_input(int fd);
Error interrupted_error(std::string what = "Stopped by Ctrl-C.");

// A file that must not outlive the program; removed when it ends in any of our ways. One at a time.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string path);
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace bitnet::cli
