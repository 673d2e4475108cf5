#include "train/ranks/peers.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>

namespace bitnet {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kGreeting = 0x31736b6e61726e62;  // "bnranks1"
constexpr uint64_t kMaxMessage_bytes = uint64_t{16} << 20;
#ifdef POLLRDHUP
constexpr short kGone = POLLRDHUP | POLLHUP | POLLERR;
#else
constexpr short kGone = POLLHUP | POLLERR;
#endif

struct Greeting {
  uint64_t magic = kGreeting;
  int32_t rank = 0, n_ranks = 0;
};

struct Addresses {
  ~Addresses() {
    if (first != nullptr) ::freeaddrinfo(first);
  }
  addrinfo* first = nullptr;
};

Status look_up(const char* host, int port, Addresses& found) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = host == nullptr ? AI_PASSIVE : 0;
  const int error = ::getaddrinfo(host, std::to_string(port).c_str(), &hints, &found.first);
  if (error == 0) return ok();
  return make_error(ErrorCode::kResource, "MASTER_ADDR is {}: {}", host == nullptr ? "" : host, ::gai_strerror(error));
}

// Small messages at once, and a machine that is gone is noticed after a minute.
void set_up(int socket) {
  const auto set = [&](int level, int option, int value) {
    (void)::setsockopt(socket, level, option, &value, sizeof value);
  };
  (void)::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK);
  (void)::fcntl(socket, F_SETFD, FD_CLOEXEC);
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
  set(IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
#endif
}

// As happens where nobody listens yet, when the own port is by chance the one that is asked for.
bool is_connected_to_itself(int socket) {
  sockaddr_storage own = {}, other = {};
  socklen_t own_size = sizeof own, other_size = sizeof other;
  return ::getsockname(socket, reinterpret_cast<sockaddr*>(&own), &own_size) == 0 &&
         ::getpeername(socket, reinterpret_cast<sockaddr*>(&other), &other_size) == 0 && own_size == other_size &&
         std::memcmp(&own, &other, own_size) == 0;
}

int left_ms(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return int(std::clamp<int64_t>(left, 0, 1 << 30));
}

}  // namespace

Result<std::unique_ptr<Peers>> Peers::join(const RankPlace& place, Duration patience) {
  std::unique_ptr<Peers> made(new Peers(place.rank, place.n_ranks));
  made->sockets_.assign(size_t(place.n_ranks), -1);
  const Deadline deadline = Clock::now() + patience;
  if (place.rank == 0) {
    BN_RETURN_IF_ERROR(made->listen(place));
    BN_RETURN_IF_ERROR(made->accept_all(deadline));
  } else {
    BN_RETURN_IF_ERROR(made->connect(place, deadline));
  }
  return made;
}

Peers::~Peers() {
  for (const int socket : sockets_) {
    if (socket >= 0) ::close(socket);
  }
  if (listener_ >= 0) ::close(listener_);
}

Status Peers::listen(const RankPlace& place) {
  Addresses addresses;
  BN_RETURN_IF_ERROR(look_up(nullptr, place.port, addresses));
  int error = EADDRNOTAVAIL;
  // Both kinds of addresses at one socket where there are both.
  for (const int family : {AF_INET6, AF_INET}) {
    for (const addrinfo* a = addresses.first; a != nullptr && listener_ < 0; a = a->ai_next) {
      if (a->ai_family != family) continue;
      const int socket = ::socket(family, SOCK_STREAM, 0);
      if (socket < 0) {
        error = errno;
        continue;
      }
      const int yes = 1, no = 0;
      (void)::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
      if (family == AF_INET6) (void)::setsockopt(socket, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
      if (::bind(socket, a->ai_addr, a->ai_addrlen) == 0 && ::listen(socket, place.n_ranks) == 0) {
        listener_ = socket;
      } else {
        error = errno;
        ::close(socket);
        if (error == EADDRINUSE) break;
      }
    }
    if (listener_ >= 0 || error == EADDRINUSE) break;
  }
  if (listener_ < 0) {
    return make_error(ErrorCode::kResource, "rank 0 cannot listen at port {} (MASTER_PORT): {}", place.port,
                      std::strerror(error));
  }
  (void)::fcntl(listener_, F_SETFD, FD_CLOEXEC);
  return ok();
}

Status Peers::accept_all(Deadline deadline) {
  for (int n_come = 1; n_come < n_ranks_;) {
    pollfd waiting{listener_, POLLIN, 0};
    const int n_ready = ::poll(&waiting, 1, left_ms(deadline));
    if (n_ready < 0 && errno == EINTR) continue;
    if (n_ready <= 0) {
      return make_error(ErrorCode::kResource, "{} of {} processes have come to rank 0 in time", n_come, n_ranks_);
    }
    const int socket = ::accept(listener_, nullptr, nullptr);
    if (socket < 0) continue;
    set_up(socket);
    // Whoever knocks without the greeting is no rank.
    Greeting greeting;
    sockets_[0] = socket;
    const Status greeted =
        receive_bytes(0, &greeting, sizeof greeting, std::min(deadline, Clock::now() + std::chrono::seconds(10)));
    sockets_[0] = -1;
    if (!greeted || greeting.magic != kGreeting) {
      ::close(socket);
      continue;
    }
    const bool known = greeting.rank > 0 && greeting.rank < n_ranks_;
    if (greeting.n_ranks != n_ranks_ || !known || sockets_[size_t(greeting.rank)] >= 0) {
      ::close(socket);
      return invalid_argument("rank {} of {} has come to a run of {} processes{}", greeting.rank, greeting.n_ranks,
                              n_ranks_, known && greeting.n_ranks == n_ranks_ ? " for the second time" : "");
    }
    sockets_[size_t(greeting.rank)] = socket;
    ++n_come;
  }
  ::close(listener_);
  listener_ = -1;
  return ok();
}

Status Peers::connect(const RankPlace& place, Deadline deadline) {
  int error = 0;
  do {
    Addresses addresses;
    BN_RETURN_IF_ERROR(look_up(place.host.c_str(), place.port, addresses));
    for (const addrinfo* a = addresses.first; a != nullptr; a = a->ai_next) {
      const int socket = ::socket(a->ai_family, SOCK_STREAM, 0);
      if (socket < 0) {
        error = errno;
        continue;
      }
      set_up(socket);
      if (::connect(socket, a->ai_addr, a->ai_addrlen) != 0 && errno == EINPROGRESS) {
        pollfd waiting{socket, POLLOUT, 0};
        socklen_t size = sizeof error;
        error = ETIMEDOUT;
        if (::poll(&waiting, 1, std::min(left_ms(deadline), 10000)) > 0) {
          (void)::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
        }
      } else {
        error = errno;
      }
      pollfd connected{socket, POLLOUT, 0};
      if (::poll(&connected, 1, 0) == 1 && (connected.revents & kGone) == 0 && !is_connected_to_itself(socket)) {
        sockets_[0] = socket;
        Greeting greeting;
        greeting.rank = place.rank;
        greeting.n_ranks = place.n_ranks;
        return send_bytes(0, &greeting, sizeof greeting, deadline);
      }
      ::close(socket);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  } while (Clock::now() < deadline);
  return make_error(ErrorCode::kResource, "rank {} cannot reach rank 0 at {}:{} (MASTER_ADDR, MASTER_PORT): {}", rank_,
                    place.host, place.port, std::strerror(error));
}

Error Peers::gone(int peer) const {
  return make_error(ErrorCode::kResource, "rank {} of {} has left the run; it may have said why", peer, n_ranks_);
}

Status Peers::wait_for(int peer, short events, Deadline deadline) const {
  pollfd waiting{sockets_[size_t(peer)], events, 0};
  for (;;) {
    const int n_ready = ::poll(&waiting, 1, left_ms(deadline));
    if (n_ready > 0) return ok();
    if (n_ready == 0) {
      return make_error(ErrorCode::kResource, "rank {} of {} does not answer", peer, n_ranks_);
    }
    if (errno != EINTR) return make_error(ErrorCode::kResource, "poll: {}", std::strerror(errno));
  }
}

Status Peers::send_bytes(int peer, const void* data, size_t n, Deadline deadline) const {
  const auto* bytes = static_cast<const char*>(data);
  while (n > 0) {
    const ssize_t sent = ::send(sockets_[size_t(peer)], bytes, n, MSG_NOSIGNAL);
    if (sent > 0) {
      bytes += sent;
      n -= size_t(sent);
    } else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      BN_RETURN_IF_ERROR(wait_for(peer, POLLOUT, deadline));
    } else if (sent < 0 && errno != EINTR) {
      return gone(peer);
    }
  }
  return ok();
}

Status Peers::receive_bytes(int peer, void* data, size_t n, Deadline deadline) const {
  auto* bytes = static_cast<char*>(data);
  while (n > 0) {
    const ssize_t received = ::recv(sockets_[size_t(peer)], bytes, n, 0);
    if (received > 0) {
      bytes += received;
      n -= size_t(received);
    } else if (received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      BN_RETURN_IF_ERROR(wait_for(peer, POLLIN, deadline));
    } else if (received == 0 || errno != EINTR) {
      return gone(peer);
    }
  }
  return ok();
}

Status Peers::send(int peer, std::string_view text, Deadline deadline) const {
  const uint64_t n_bytes = text.size();
  BN_RETURN_IF_ERROR(send_bytes(peer, &n_bytes, sizeof n_bytes, deadline));
  return send_bytes(peer, text.data(), text.size(), deadline);
}

Result<std::string> Peers::receive(int peer, Deadline deadline) const {
  uint64_t n_bytes = 0;
  BN_RETURN_IF_ERROR(receive_bytes(peer, &n_bytes, sizeof n_bytes, deadline));
  if (n_bytes > kMaxMessage_bytes) {
    return make_error(ErrorCode::kResource, "rank {} sends a message of {} bytes", peer, n_bytes);
  }
  std::string text(n_bytes, '\0');
  BN_RETURN_IF_ERROR(receive_bytes(peer, text.data(), text.size(), deadline));
  return text;
}

Result<std::string> Peers::meet(std::string_view said, Duration patience) {
  const Deadline deadline = Clock::now() + patience;
  if (rank_ != 0) {
    BN_RETURN_IF_ERROR(send(0, said, deadline));
    return receive(0, deadline);
  }
  std::string first(said);
  for (int peer = 1; peer < n_ranks_; ++peer) {
    BN_ASSIGN_OR_RETURN(std::string text, receive(peer, deadline));
    if (first.empty()) first = std::move(text);
  }
  for (int peer = 1; peer < n_ranks_; ++peer) BN_RETURN_IF_ERROR(send(peer, first, deadline));
  return first;
}

Status Peers::agree(const Status& mine) {
  const std::string said = mine ? std::string() : fmt::format("rank {}: {}", rank_, mine.error().message);
  BN_ASSIGN_OR_RETURN(const std::string failure, meet(said));
  if (!mine) return Error(mine.error());
  if (failure.empty()) return ok();
  return make_error(ErrorCode::kResource, "{}", failure);
}

Status Peers::check() const {
  for (int peer = 0; peer < n_ranks_; ++peer) {
    if (sockets_[size_t(peer)] < 0) continue;
    pollfd state{sockets_[size_t(peer)], kGone, 0};
    if (::poll(&state, 1, 0) > 0 && (state.revents & kGone) != 0) return gone(peer);
  }
  return ok();
}

Status Peers::leave() {
  BN_RETURN_IF_ERROR(meet({}));
  left_ = true;
  return ok();
}

}  // namespace bitnet
