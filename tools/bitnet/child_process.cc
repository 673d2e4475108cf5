#include "child_process.h"

#include "interrupt.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

extern char** environ;

namespace bitnet::cli {
namespace {

constexpr size_t kOutputLimit = size_t{64} << 20;

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return status;
}

// The pipe's contents, until its end, our interruption, or the limit.
std::string read_all(int fd) {
  std::string text;
  char buffer[4096];
  while (text.size() <= kOutputLimit && wait_for_input(fd)) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(buffer, size_t(n));
  }
  return text;
}

}  // namespace

Result<std::string> output_of(const std::vector<std::string>& command) {
  const std::string& program = command.front();
  int pipe_fds[2];
  if (::pipe(pipe_fds) != 0) return make_error(ErrorCode::kResource, "Cannot make a pipe: {}", std::strerror(errno));
  ::fcntl(pipe_fds[0], F_SETFD, FD_CLOEXEC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, pipe_fds[1]);
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t child = -1;
  const int failed = ::posix_spawnp(&child, program.c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(pipe_fds[1]);
  if (failed != 0) {
    ::close(pipe_fds[0]);
    return invalid_argument("{}: cannot be started: {}", program, std::strerror(failed));
  }
  std::string text = read_all(pipe_fds[0]);
  ::close(pipe_fds[0]);
  if (interrupted()) {
    ::kill(child, SIGTERM);
    wait_for(child);
    return interrupted_error();
  }
  if (text.size() > kOutputLimit) ::kill(child, SIGTERM);
  const int status = wait_for(child);
  if (text.size() > kOutputLimit) return invalid_input("{}: wrote more than 64 MB", program);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::string line;
    for (const std::string& word : command) line += (line.empty() ? "" : " ") + word;
    return WIFEXITED(status) ? invalid_input("{}: ended with exit code {}", line, WEXITSTATUS(status))
                             : invalid_input("{}: was ended by signal {}", line, WTERMSIG(status));
  }
  return text;
}

}  // namespace bitnet::cli
