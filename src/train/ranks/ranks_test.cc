#include "train/ranks/train_ranks.h"
#include "train/ranks/watch.h"
#include "train/test_folder.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <latch>
#include <map>
#include <string>
#include <thread>

namespace bitnet {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::expect_error;

Environment environment(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) -> const char* {
    const auto found = values.find(name);
    return found == values.end() ? nullptr : found->second.c_str();
  };
}

TEST(RankPlaces, AreThoseThatTheLauncherSays) {
  const auto alone = find_rank_place(environment({{"RANK", "0"}, {"WORLD_SIZE", "1"}}));
  ASSERT_TRUE(alone);
  EXPECT_FALSE(*alone);
  EXPECT_FALSE(*find_rank_place(environment({})));

  auto place = find_rank_place(environment({{"RANK", "5"},
                                            {"WORLD_SIZE", "8"},
                                            {"LOCAL_RANK", "1"},
                                            {"LOCAL_WORLD_SIZE", "4"},
                                            {"MASTER_ADDR", "node-a"},
                                            {"MASTER_PORT", "1234"},
                                            {"OMPI_COMM_WORLD_RANK", "0"},
                                            {"OMPI_COMM_WORLD_SIZE", "2"}}));
  ASSERT_TRUE(place && *place);
  EXPECT_EQ((*place)->rank, 5);
  EXPECT_EQ((*place)->n_ranks, 8);
  EXPECT_EQ((*place)->local_rank, 1);
  EXPECT_EQ((*place)->host, "node-a");
  EXPECT_EQ((*place)->port, 1234);

  place = find_rank_place(environment({{"RANK", "1"},
                                       {"WORLD_SIZE", "2"},
                                       {"MASTER_ADDR", "::1"},
                                       {"MASTER_PORT", "1234"},
                                       {"TORCHELASTIC_USE_AGENT_STORE", "True"}}));
  ASSERT_TRUE(place && *place);
  EXPECT_EQ((*place)->port, 1235);

  for (const auto& [rank, size, local] :
       {std::tuple{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
        {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"}}) {
    place = find_rank_place(environment({{rank, "3"}, {size, "4"}, {local, "2"}}));
    ASSERT_TRUE(place && *place) << rank;
    EXPECT_EQ((*place)->rank, 3);
    EXPECT_EQ((*place)->n_ranks, 4);
    EXPECT_EQ((*place)->local_rank, 2);
    EXPECT_EQ((*place)->host, "127.0.0.1");
    EXPECT_EQ((*place)->port, 29500);
  }
}

TEST(RankPlaces, ThatMakeNoSenseAreRefused) {
  const auto refuse = [](std::map<std::string, std::string> values, const char* part) {
    expect_error(find_rank_place(environment(std::move(values))), ErrorCode::kInvalidArgument, part);
  };
  refuse({{"RANK", "2"}, {"WORLD_SIZE", "2"}}, "RANK=2, expected a number from 0 to 1");
  refuse({{"RANK", "x"}, {"WORLD_SIZE", "2"}}, "RANK=x");
  refuse({{"RANK", "0"}, {"WORLD_SIZE", "0"}}, "WORLD_SIZE=0");
  refuse({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "70000"}}, "MASTER_PORT=70000");
  refuse({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}},
         "MASTER_ADDR");
}

TEST(TrainRanks, OfOneProcess) {
  const auto one = join_ranks("cuda:3", environment({}));
  ASSERT_TRUE(one);
  EXPECT_EQ(one->devices, std::vector<std::string>{"cuda:3"});
  EXPECT_EQ(one->n, 1);
  const auto three = join_ranks("cuda:2,0,1", environment({}));
  ASSERT_TRUE(three);
  EXPECT_EQ(three->devices, (std::vector<std::string>{"cuda:2", "cuda:0", "cuda:1"}));
  EXPECT_EQ(three->n, 3);
  EXPECT_TRUE(three->leads());
  expect_error(join_ranks("cuda:0,1,0", environment({})), ErrorCode::kInvalidArgument, "GPU 0 twice");
  const auto launched = environment({{"RANK", "0"}, {"WORLD_SIZE", "2"}});
  expect_error(join_ranks("cuda:0,1", launched), ErrorCode::kInvalidArgument, "of 2 processes each");
  expect_error(join_ranks("cpu", launched), ErrorCode::kInvalidArgument, "of 2 processes each");
}

// Each sequence of a step once, whatever the number of ranks.
TEST(TrainRanks, ShareAStep) {
  for (const int64_t batch : {1, 4, 6, 64}) {
    for (const int64_t accumulation : {1, 2, 3, 8}) {
      for (const int n_ranks : {1, 2, 3, 4, 6, 8, 24}) {
        const auto share = share_step(batch, accumulation, n_ranks);
        if (!share) {
          EXPECT_NE(share.error().message.find("cannot be shared evenly"), std::string::npos);
          continue;
        }
        EXPECT_EQ(share->n_sequences * share->n_parts * n_ranks, batch * accumulation);
        EXPECT_LE(share->n_sequences, batch);
        EXPECT_EQ(batch % share->n_sequences, 0);
      }
    }
  }
  EXPECT_EQ(share_step(64, 2, 2)->n_sequences, 64);
  EXPECT_EQ(share_step(64, 1, 2)->n_sequences, 32);
  EXPECT_EQ(share_step(6, 4, 8)->n_sequences, 3);
  EXPECT_FALSE(share_step(3, 1, 2));
  EXPECT_FALSE(share_step(64, 1, 3));
}

// A port that nobody listens at.
int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(socket);
  return ntohs(address.sin_port);
}

// fn(rank, its peers) on a thread each.
template <class Fn>
void run_ranks(int n_ranks, const Fn& fn) {
  const int port = free_port();
  std::vector<std::thread> threads;
  for (int rank = n_ranks - 1; rank >= 0; --rank) {
    threads.emplace_back([=, &fn] { fn(rank, Peers::join({rank, n_ranks, rank, "127.0.0.1", port}, seconds(20))); });
    if (rank == 1) std::this_thread::sleep_for(milliseconds(150));  // rank 0 comes last
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Peers, HearTheFirstThatSpeaks) {
  for (const int n_ranks : {2, 5}) {
    run_ranks(n_ranks, [&](int rank, Result<std::unique_ptr<Peers>> joined) {
      ASSERT_TRUE(joined) << joined.error().message;
      Peers& peers = **joined;
      EXPECT_EQ(*peers.meet({}), "");
      EXPECT_EQ(*peers.meet(rank == 0 ? "from the first" : ""), "from the first");
      EXPECT_EQ(*peers.meet(rank == 0 ? "" : std::to_string(rank)), "1");
      const std::string large(1 << 20, char('a' + rank));
      EXPECT_EQ(*peers.meet(large), std::string(1 << 20, 'a'));
      EXPECT_TRUE(peers.check());
      EXPECT_TRUE(peers.agree(ok()));
      const Status failed = peers.agree(rank == n_ranks - 1 ? Status(unsupported("no such GPU")) : ok());
      ASSERT_FALSE(failed);
      EXPECT_NE(failed.error().message.find("no such GPU"), std::string::npos);
      EXPECT_EQ(failed.error().code, rank == n_ranks - 1 ? ErrorCode::kUnsupported : ErrorCode::kResource);
      EXPECT_TRUE(peers.leave());
    });
  }
}

TEST(Peers, NoticeThatOneHasLeft) {
  run_ranks(3, [](int rank, Result<std::unique_ptr<Peers>> joined) {
    ASSERT_TRUE(joined);
    ASSERT_TRUE((*joined)->meet({}));
    if (rank == 2) return joined->reset();
    if (rank == 0) {  // by looking
      for (int i = 0; i < 1000 && (*joined)->check(); ++i) std::this_thread::sleep_for(milliseconds(10));
      EXPECT_NE((*joined)->check().error().message.find("rank 2 of 3 has left"), std::string::npos);
      return joined->reset();
    }
    const auto met = (*joined)->meet("here");  // by waiting
    expect_error(met, ErrorCode::kResource, "rank 0 of 3 has left");
  });
}

TEST(PeerWatch, GivesUpWhenOneHasLeftOrNothingComes) {
  run_ranks(2, [](int rank, Result<std::unique_ptr<Peers>> joined) {
    ASSERT_TRUE(joined);
    if (rank == 1) {
      (void)(*joined)->meet({});
      std::this_thread::sleep_for(milliseconds(300));
      return joined->reset();
    }
    std::atomic<int> n_given_up = 0;
    const auto wait = [&] {
      for (int i = 0; i < 1000 && n_given_up == 0; ++i) std::this_thread::sleep_for(milliseconds(10));
    };
    {
      PeerWatch watch(
          **joined, [&] { ++n_given_up; }, milliseconds(150));
      watch.begin();
      EXPECT_TRUE(watch.end());
      watch.begin();
      wait();
      const Status late = watch.end();
      ASSERT_FALSE(late);
      EXPECT_NE(late.error().message.find("have waited for each other"), std::string::npos);
      EXPECT_FALSE(watch.end());  // for good
    }
    EXPECT_EQ(n_given_up, 1);
    ASSERT_TRUE((*joined)->meet({}));
    n_given_up = 0;
    PeerWatch watch(**joined, [&] { ++n_given_up; });
    watch.begin();
    wait();
    const Status lost = watch.end();
    ASSERT_FALSE(lost);
    EXPECT_NE(lost.error().message.find("rank 1 of 2 has left"), std::string::npos);
    EXPECT_EQ(n_given_up, 1);
  });
}

TEST(Peers, DoNotWaitForEver) {
  const int port = free_port();
  expect_error(Peers::join({0, 2, 0, "127.0.0.1", port}, milliseconds(200)), ErrorCode::kResource, "1 of 2 processes");
  expect_error(Peers::join({1, 2, 1, "127.0.0.1", port}, milliseconds(200)), ErrorCode::kResource,
               "rank 1 cannot reach rank 0 at 127.0.0.1");
  run_ranks(2, [](int rank, Result<std::unique_ptr<Peers>> joined) {
    ASSERT_TRUE(joined);
    if (rank == 0) {
      expect_error((*joined)->meet({}, milliseconds(100)), ErrorCode::kResource, "rank 1 of 2 does not answer");
      return;
    }
    while ((*joined)->check()) std::this_thread::sleep_for(milliseconds(10));
  });
}

TEST(Peers, RefuseTwoOfOneRankAndIgnoreStrangers) {
  const int port = free_port();
  std::latch knocked(1);  // rank 0 no longer listens when both twins have come
  std::thread stranger([&] {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(uint16_t(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    for (int i = 0; i < 200; ++i) {
      if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) break;
      std::this_thread::sleep_for(milliseconds(10));
    }
    EXPECT_GT(::send(socket, "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL), 0);
    knocked.count_down();
    ::close(socket);
  });
  std::thread twins[2];
  for (std::thread& twin : twins) {
    twin = std::thread([&] {
      knocked.wait();
      (void)Peers::join({1, 3, 1, "127.0.0.1", port}, seconds(5));
    });
  }
  expect_error(Peers::join({0, 3, 0, "127.0.0.1", port}, seconds(5)), ErrorCode::kInvalidArgument,
               "rank 1 of 3 has come to a run of 3 processes for the second time");
  stranger.join();
  for (std::thread& twin : twins) twin.join();
}

}  // namespace
}  // namespace bitnet
