#include <chrono>
#include <numeric>
#include <regex>
#include <thread>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/parallel/mpi_main.h"

namespace temper::parallel {

namespace {

// More than one piece of 4 MiB, and not a multiple of one.
constexpr int64_t kLong = (9 << 20) / 4 + 3;

TEST(AllReduce, AddsEveryDtypeInPlace) {
  Communicator& group = test_group();
  const int64_t size = group.size();
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kInt, at::kLong, at::kByte}) {
    at::Tensor tensor = at::arange(5, dtype) + group.rank();
    group.all_reduce(tensor)->wait();
    const at::Tensor expected = at::arange(5, dtype) * size + size * (size - 1) / 2;
    EXPECT_TRUE(at::equal(tensor, expected.to(dtype))) << at::toString(dtype);
  }
}

TEST(AllReduce, TakesLongTensorsInPieces) {
  Communicator& group = test_group();
  at::Tensor tensor = at::arange(kLong, at::kDouble) + group.rank();
  group.all_reduce(tensor)->wait();
  const double size = group.size();
  EXPECT_TRUE(at::equal(tensor, at::arange(kLong, at::kDouble) * size + size * (size - 1) / 2));
}

TEST(AllReduce, FindsExtremes) {
  Communicator& group = test_group();
  at::Tensor most = at::full({3}, group.rank(), at::kLong);
  at::Tensor least = most.clone();
  group.all_reduce(most, ReduceOp::kMax)->wait();
  group.all_reduce(least, ReduceOp::kMin)->wait();
  EXPECT_TRUE(at::equal(most, at::full({3}, group.size() - 1, at::kLong)));
  EXPECT_TRUE(at::equal(least, at::zeros({3}, at::kLong)));
}

TEST(AllReduce, GivesTheSameBitsAgainAndOnEveryRank) {
  Communicator& group = test_group();
  at::manual_seed(test_session().world().rank);
  const at::Tensor own = at::randn({kLong});
  at::Tensor first = own.clone();
  at::Tensor second = own.clone();
  group.all_reduce(first)->wait();
  const auto work = group.all_reduce(second);
  std::this_thread::sleep_for(
      std::chrono::milliseconds(30));  // the background thread tests, not wait()
  work->wait();
  EXPECT_TRUE(at::equal(first, second));
  at::Tensor of_root = first.clone();
  group.broadcast(of_root, 0)->wait();
  EXPECT_TRUE(at::equal(first, of_root));
}

TEST(AllReduce, OfNothingIsDone) {
  at::Tensor nothing = at::empty({0});
  test_group().all_reduce(nothing)->wait();
}

TEST(AllReduce, GoesOnWithoutAWaitingThread) {
  Communicator& group = test_group();
  at::Tensor tensor = at::ones({kLong});
  const auto work = group.all_reduce(tensor);
  group.barrier();
  for (int i = 0; i < 2000 && !work->done(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_TRUE(work->done());
  work->wait();
  EXPECT_EQ(tensor[kLong - 1].item<float>(), static_cast<float>(group.size()));
}

TEST(AllReduce, ManyAtOnceStayApart) {
  Communicator& group = test_group();
  std::vector<at::Tensor> tensors;
  std::vector<WorkPtr> works;
  for (int64_t i = 0; i < 20; ++i) {
    tensors.push_back(at::full({i % 3 == 0 ? kLong : 7}, i));
    works.push_back(group.all_reduce(tensors.back()));
  }
  for (auto work = works.rbegin(); work != works.rend(); ++work) (*work)->wait();
  for (int64_t i = 0; i < 20; ++i) {
    EXPECT_TRUE(at::equal(tensors[i], at::full_like(tensors[i], i * group.size()))) << i;
  }
}

TEST(ReduceScatter, GivesEachRankItsBlockOfTheSum) {
  Communicator& group = test_group();
  for (const int64_t block : {int64_t{3}, kLong}) {
    const at::Tensor input = at::arange(block * group.size(), at::kDouble) + group.rank();
    at::Tensor output = at::empty({block}, at::kDouble);
    group.reduce_scatter(output, input)->wait();
    const double size = group.size();
    const at::Tensor expected =
        at::arange(block * group.rank(), block * (group.rank() + 1), at::kDouble) * size +
        size * (size - 1) / 2;
    EXPECT_TRUE(at::equal(output, expected)) << block;
  }
}

TEST(AllGather, PutsBlocksInRankOrderForAnyDtype) {
  Communicator& group = test_group();
  for (const int64_t block : {int64_t{3}, kLong}) {
    const at::Tensor input = at::full({block}, group.rank() + 1, at::kBFloat16);
    at::Tensor output = at::empty({group.size(), block}, at::kBFloat16);
    group.all_gather(output, input)->wait();
    for (int rank = 0; rank < group.size(); ++rank) {
      EXPECT_TRUE(at::equal(output[rank], at::full({block}, rank + 1, at::kBFloat16)));
    }
  }
}

TEST(Broadcast, TakesTheRootsValues) {
  Communicator& group = test_group();
  const int root = group.size() - 1;
  at::Tensor tensor = at::full({kLong}, group.rank(), at::kFloat);
  group.broadcast(tensor, root)->wait();
  EXPECT_TRUE(at::equal(tensor, at::full({kLong}, root, at::kFloat)));
}

TEST(AllToAll, TransposesBlocks) {
  Communicator& group = test_group();
  for (const int64_t block : {int64_t{2}, kLong}) {
    std::vector<at::Tensor> blocks;
    for (int peer = 0; peer < group.size(); ++peer) {
      blocks.push_back(at::full({block}, 10 * group.rank() + peer));
    }
    const at::Tensor input = at::cat(blocks);
    at::Tensor output = at::empty_like(input);
    group.all_to_all(output, input)->wait();
    for (int peer = 0; peer < group.size(); ++peer) {
      EXPECT_TRUE(at::equal(output.narrow(0, peer * block, block),
                            at::full({block}, 10 * peer + group.rank())));
    }
  }
}

TEST(SendReceive, BothWaysAtOnceInAnyOrder) {
  Communicator& group = test_group();
  const int next = (group.rank() + 1) % group.size();
  const int previous = (group.rank() + group.size() - 1) % group.size();
  const at::Tensor own = at::full({kLong}, group.rank(), at::kFloat);
  at::Tensor received = at::empty({kLong});
  at::Tensor sum = at::ones({1});
  const auto receive = group.receive(received, previous, 7);
  const auto reduce = group.all_reduce(sum);  // does not wait behind the receive
  const auto send = group.send(own, next, 7);
  reduce->wait();
  receive->wait();
  send->wait();
  EXPECT_TRUE(at::equal(received, at::full({kLong}, previous, at::kFloat)));
}

TEST(Split, MakesGroupsThatWorkAtTheSameTime) {
  Communicator& group = test_group();
  const auto half = group.split(group.rank() % 2, -group.rank(), "half");
  EXPECT_EQ(half->size(), group.size() / 2);
  EXPECT_EQ(half->rank(), half->size() - 1 - group.rank() / 2);  // ordered by key
  at::Tensor in_half = at::full({kLong}, group.rank(), at::kFloat);
  at::Tensor in_all = at::full({kLong}, 1, at::kFloat);
  const auto first = half->all_reduce(in_half);
  const auto second = group.all_reduce(in_all);
  second->wait();
  first->wait();
  float expected = 0;
  for (int rank = group.rank() % 2; rank < group.size(); rank += 2) expected += rank;
  EXPECT_EQ(in_half[kLong - 1].item<float>(), expected);
  EXPECT_EQ(in_all[0].item<float>(), static_cast<float>(group.size()));
}

TEST(TimeOut, NamesCollectiveRankGroupAndSeconds) {
  const auto impatient = test_session().communicator(0.5);
  at::Tensor tensor = at::ones({4});
  const World& world = test_session().world();
  if (world.rank > 0) {
    const auto start = std::chrono::steady_clock::now();
    auto work = impatient->all_reduce(tensor);
    try {
      work->wait();
      FAIL() << "rank 0 was not there";
    } catch (const RunError& error) {
      // The number of rank 0's barrier depends on the tests before this one; another rank may have
      // timed out a little earlier and wait there too.
      const std::string in_barrier = " on " + world.host + " waits in barrier N in group 'world'";
      std::string message = std::regex_replace(
          error.what(), std::regex("waits in barrier [0-9]+ in"), "waits in barrier N in");
      message = std::regex_replace(message, std::regex(", rank [1-9]" + in_barrier), "");
      EXPECT_EQ(message, "rank " + std::to_string(world.rank) + " on " + world.host +
                             ": all_reduce 1 in group 'world' waited 0.5 s (parallel.timeout); "
                             "rank 0" + in_barrier + ": lost, stuck or doing something else");
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    EXPECT_GE(seconds, 0.5);
    EXPECT_LT(seconds, 5);
    test_group().barrier();
  } else {
    test_group().barrier();
    impatient->all_reduce(tensor)->wait();  // late, so that nothing is left under way
  }
  test_group().barrier();
}

TEST(Texts, BroadcastAndGatherKeepRankOrder) {
  Session& session = test_session();
  const World& world = session.world();
  const std::string own(world.rank * 1000, static_cast<char>('a' + world.rank));
  const std::vector<std::string> texts = session.gather_text(own);
  if (world.rank == 0) {
    ASSERT_EQ(texts.size(), static_cast<size_t>(world.size));
    for (int rank = 0; rank < world.size; ++rank) {
      EXPECT_EQ(texts[rank], std::string(rank * 1000, static_cast<char>('a' + rank)));
    }
  } else {
    EXPECT_TRUE(texts.empty());
  }
  EXPECT_EQ(session.broadcast_text(world.rank == 0 ? "from rank 0" : "ignored"), "from rank 0");
  EXPECT_EQ(session.broadcast_text(""), "");
}

}  // namespace

}  // namespace temper::parallel
