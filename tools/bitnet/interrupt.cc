#include "interrupt.h"

#include "bitnet/session.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace bitnet::cli {
namespace {

// All that the handler touches is lock-free and prepared before: a signal may come at any instruction.
std::atomic<int> n_signals{0};
std::atomic<int> n_scopes{0};
std::atomic<Session*> running_session{nullptr};
std::atomic<const char*> temporary_file{nullptr};
std::array<char, 256> last_words{};
size_t last_words_size = 0;
int last_words_fd = STDERR_FILENO;
int wake_fds[2] = {-1, -1};  // a pipe: a signal between a look at n_signals and a wait ends the wait

extern "C" void on_interrupt(int) {
  const int saved_errno = errno;
  const int before = n_signals.fetch_add(1);
  if (n_scopes.load() == 0 || before > 0) {
    if (const char* path = temporary_file.load()) ::unlink(path);
    [[maybe_unused]] const ssize_t written = ::write(last_words_fd, last_words.data(), last_words_size);
    ::_exit(int(ErrorCode::kInterrupted));
  }
  if (Session* session = running_session.load()) session->request_stop();
  [[maybe_unused]] const ssize_t written = ::write(wake_fds[1], "", 1);
  errno = saved_errno;
}

}  // namespace

void install_interrupt_handler(const std::string& command, bool json) {
  const Error error = interrupted_error();
  const std::string words = json ? to_json(error) + "\n" : "\n" + command + ": " + to_text(error);
  last_words_size = std::min(words.size(), last_words.size());
  std::memcpy(last_words.data(), words.data(), last_words_size);
  last_words_fd = json ? STDOUT_FILENO : STDERR_FILENO;
  if (::pipe(wake_fds) == 0) {
    for (const int fd : wake_fds) {
      ::fcntl(fd, F_SETFL, O_NONBLOCK);
      ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
  }
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  action.sa_flags = 0;  // no SA_RESTART: waiting for a line of input ends too
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

InterruptScope::InterruptScope(Session* session) {
  if (session != nullptr) running_session.store(session);
  n_scopes.fetch_add(1);
}
InterruptScope::~InterruptScope() {
  n_scopes.fetch_sub(1);
  running_session.store(nullptr);
}

bool interrupted() { return n_signals.load() > 0; }
void clear_interrupt() {
  n_signals.store(0);
  char bytes[64];
  while (::read(wake_fds[0], bytes, sizeof bytes) > 0) {
  }
}
bool wait_for_input(int fd) {
  pollfd waited[2] = {{fd, POLLIN, 0}, {wake_fds[0], POLLIN, 0}};
  while (!interrupted()) {
    if (::poll(waited, 2, -1) > 0 && waited[0].revents != 0) return true;
  }
  return false;
}
Error interrupted_error(std::string what) { return Error{ErrorCode::kInterrupted, std::move(what)}; }

TemporaryFile::TemporaryFile(std::string path) : path_(std::move(path)) { temporary_file.store(path_.c_str()); }
TemporaryFile::~TemporaryFile() {
  temporary_file.store(nullptr);
  ::unlink(path_.c_str());
}

}  // namespace bitnet::cli
