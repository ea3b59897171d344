// nccl_communicator.cpp's own logic, against a stand-in for NCCL and the CUDA runtime: ranks are
// threads, and their tensors are the host's under the name of a device.
#include "parallel/cuda/nccl_communicator.h"

#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>
#include <torch/library.h>

#include "parallel/store/communicator.h"
#include "tests/parallel/fake_nccl.h"

// What libtorch_cuda tells libc10_cuda of the driver; no header has it.
namespace c10::cuda::_internal {
void setHasPrimaryContext(bool (*has)(DeviceIndex device));
}

namespace temper::parallel {

namespace {

/// `host`'s memory as a tensor on `device`.
at::Tensor on_device(const at::Tensor& host, int device = 0) {
  const at::Device cuda(at::kCUDA, static_cast<at::DeviceIndex>(device));
  return at::from_blob(
      host.data_ptr(), host.sizes(), [host](void*) {}, host.options().device(cuda), cuda);
}

at::Tensor empty_on_device(at::SymIntArrayRef sizes, std::optional<at::ScalarType> dtype,
                           std::optional<at::Layout>, std::optional<at::Device> device,
                           std::optional<bool>, std::optional<at::MemoryFormat>) {
  const at::Tensor host = at::empty(C10_AS_INTARRAYREF_SLOW(sizes), dtype.value_or(at::kFloat));
  return on_device(host, device->index());
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) { library.impl("empty.memory_format", empty_on_device); }

const bool told = [] {
  c10::cuda::_internal::setHasPrimaryContext([](c10::DeviceIndex) { return true; });
  return true;
}();

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class Nccl : public testing::Test {
 protected:
  ~Nccl() override {
    EXPECT_EQ(fake_nccl::communicators(), 0);
    EXPECT_EQ(fake_nccl::events(), 0);
    fake_nccl::reset();
  }

  using Body = std::function<void(Communicator& bootstrap, int rank)>;

  /// Runs `body` on each of `size` ranks, which meet at a store of their own.
  static void on_ranks(int size, const Body& body) {
    auto served = KeyStore::serve(0);
    const int port = served->port();
    const std::vector<std::string> hosts(size, "node9");
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < size; ++rank) {
      ranks.emplace_back([&, rank] {
        const World world{.rank = rank, .size = size, .host = hosts[rank]};
        const auto exchange =
            std::make_shared<StoreExchange>(KeyStore::join("localhost", port), world, hosts);
        const auto bootstrap = make_store_communicator(exchange, "world", "world", 30);
        exchanges_of_rank = exchange.get();
        body(*bootstrap, rank);
      });
    }
    for (std::thread& rank : ranks) rank.join();  // the store is there until all have done
  }

  static std::unique_ptr<Communicator> make(Communicator& bootstrap, double timeout_seconds = 30,
                                            int device = 0) {
    return make_nccl_communicator(bootstrap, device,
                                  "rank " + std::to_string(bootstrap.rank()) + " on node9",
                                  timeout_seconds);
  }

  /// What `call` says when it fails.
  static std::string failure(const std::function<void()>& call) {
    try {
      call();
    } catch (const RunError& error) {
      return error.what();
    }
    return "";
  }

  static thread_local StoreExchange* exchanges_of_rank;
};

thread_local StoreExchange* Nccl::exchanges_of_rank = nullptr;

TEST_F(Nccl, RanksMeetAndEveryCollectiveMovesWhatItShould) {
  static constexpr int64_t kRanks = 3;
  on_ranks(kRanks, [](Communicator& bootstrap, int rank) {
    const auto group = make(bootstrap);
    EXPECT_EQ(group->rank(), rank);
    EXPECT_EQ(group->size(), kRanks);
    EXPECT_EQ(group->name(), "world");

    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kInt, at::kLong, at::kByte}) {
      const at::Tensor host = at::arange(5, dtype) + rank;
      at::Tensor tensor = on_device(host);
      group->all_reduce(tensor)->wait();
      EXPECT_TRUE(host.equal((at::arange(5, at::kLong) * kRanks + 3).to(dtype))) << dtype;
    }
    const at::Tensor extreme = at::full({2}, rank, at::kLong);
    at::Tensor most = on_device(extreme);
    group->all_reduce(most, ReduceOp::kMax)->wait();
    EXPECT_TRUE(extreme.equal(at::full({2}, 2, at::kLong)));

    const at::Tensor blocks = at::arange(2 * kRanks, at::kFloat) + rank;
    const at::Tensor sum = at::empty({2});
    at::Tensor part = on_device(sum);
    group->reduce_scatter(part, on_device(blocks))->wait();
    EXPECT_TRUE(sum.equal((at::arange(2, at::kFloat) + 2 * rank) * kRanks + 3));

    const at::Tensor own = at::full({2}, rank, at::kBFloat16);
    const at::Tensor gathered = at::empty({kRanks, 2}, at::kBFloat16);
    at::Tensor all = on_device(gathered);
    group->all_gather(all, on_device(own))->wait();
    EXPECT_TRUE(gathered.select(1, 1).equal(at::arange(kRanks, at::kBFloat16)));

    const at::Tensor word = at::full({3}, rank, at::kHalf);
    at::Tensor spread = on_device(word);
    group->broadcast(spread, 1)->wait();
    EXPECT_TRUE(word.equal(at::ones({3}, at::kHalf)));

    const at::Tensor letters = at::arange(kRanks, at::kLong) + 10 * rank;
    const at::Tensor post = at::empty({kRanks}, at::kLong);
    at::Tensor received = on_device(post);
    group->all_to_all(received, on_device(letters))->wait();
    EXPECT_TRUE(post.equal(at::arange(kRanks, at::kLong) * 10 + rank));

    const at::Tensor message = at::full({2}, 7.0f);
    at::Tensor carried = on_device(message);
    if (rank == 0) group->send(carried, 2, 0)->wait();
    if (rank == 2) {
      message.zero_();
      group->receive(carried, 0, 0)->wait();
      EXPECT_TRUE(message.equal(at::full({2}, 7.0f)));
    }
    group->barrier();
  });
}

TEST_F(Nccl, CallsAreMadeOnTheGroupsDevice) {
  fake_nccl::expect_device(1);
  on_ranks(2, [](Communicator& bootstrap, int) {
    const auto group = make(bootstrap, 30, /*device=*/1);
    const at::Tensor host = at::ones({1});
    at::Tensor tensor = on_device(host, 1);
    group->all_reduce(tensor)->wait();
    EXPECT_EQ(host.item<float>(), 2);
    group->split(0, 0, "again")->barrier();
  });
}

TEST_F(Nccl, SplitMakesGroupsInTheOrderOfTheirKeys) {
  on_ranks(4, [](Communicator& bootstrap, int rank) {
    const auto group = make(bootstrap);
    const auto half = group->split(rank % 2, -rank, "half");
    EXPECT_EQ(half->size(), 2);
    EXPECT_EQ(half->rank(), 1 - rank / 2);
    EXPECT_EQ(half->name(), "half");
    const at::Tensor host = at::full({1}, rank, at::kLong);
    at::Tensor tensor = on_device(host);
    half->all_reduce(tensor)->wait();
    EXPECT_EQ(host.item<int64_t>(), rank % 2 == 0 ? 2 : 4);
  });
  EXPECT_EQ(fake_nccl::aborts(), 8);  // each communicator once
}

TEST_F(Nccl, TheTensorsOfAWorkOutliveTheCommunicator) {
  on_ranks(2, [](Communicator& bootstrap, int) {
    auto group = make(bootstrap);
    const at::Tensor host = at::ones({1});
    at::Tensor tensor = on_device(host);
    const WorkPtr work = group->all_reduce(tensor);
    tensor.reset();
    bootstrap.barrier();
    group.reset();
    work->wait();
    EXPECT_EQ(host.item<float>(), 2);
    EXPECT_TRUE(work->done());
  });
}

TEST_F(Nccl, AnErrorThatNcclNoticesEndsEveryWait) {
  on_ranks(2, [](Communicator& bootstrap, int rank) {
    const auto group = make(bootstrap);
    if (rank == 1) return bootstrap.barrier();
    const at::Tensor host = at::ones({1});
    at::Tensor tensor = on_device(host);
    const WorkPtr first = group->all_reduce(tensor);
    const WorkPtr second = group->all_reduce(tensor);
    EXPECT_FALSE(first->done());
    fake_nccl::fail_later(0, ncclRemoteError, "socket closed");
    EXPECT_EQ(
        failure([&] { first->wait(); }),
        "rank 0 on node9: all_reduce 1 in group 'world': remote process exited (socket closed)");
    EXPECT_EQ(fake_nccl::aborts(), 1);
    const std::string after = "the group was aborted after an earlier error";
    EXPECT_EQ(failure([&] { second->wait(); }),
              "rank 0 on node9: all_reduce 2 in group 'world': " + after);
    EXPECT_EQ(failure([&] { group->all_reduce(tensor); }),
              "rank 0 on node9: all_reduce 3 in group 'world': " + after);
    EXPECT_EQ(failure([&] { group->split(0, 0, "part"); }),
              "rank 0 on node9: split in group 'world': " + after);
    EXPECT_EQ(fake_nccl::aborts(), 1);
    bootstrap.barrier();
  });
}

TEST_F(Nccl, ACallThatNcclRefusesEndsTheGroup) {
  on_ranks(2, [](Communicator& bootstrap, int rank) {
    const auto group = make(bootstrap);
    const at::Tensor host = at::ones({1});
    at::Tensor tensor = on_device(host);
    fake_nccl::refuse(rank, ncclInvalidUsage);
    EXPECT_EQ(
        failure([&] { group->all_reduce(tensor); }),
        "rank " + std::to_string(rank) + " on node9: all_reduce 1 in group 'world': another error");
  });
  EXPECT_EQ(fake_nccl::aborts(), 2);
}

TEST_F(Nccl, ARankThatDoesNotComeIsATimeOut) {
  on_ranks(2, [](Communicator& bootstrap, int rank) {
    const auto group = make(bootstrap, rank == 0 ? 0.3 : 30);
    if (rank == 0) {
      const at::Tensor host = at::ones({1});
      at::Tensor tensor = on_device(host);
      const WorkPtr work = group->all_reduce(tensor);
      const auto start = std::chrono::steady_clock::now();
      EXPECT_EQ(
          failure([&] { work->wait(); }),
          "rank 0 on node9: all_reduce 1 in group 'world': waited 0.3 s (parallel.timeout): a "
          "rank is lost, stuck or doing something else");
      EXPECT_GE(seconds_since(start), 0.3);
      EXPECT_EQ(fake_nccl::aborts(), 1);
    }
    bootstrap.barrier();
  });
}

TEST_F(Nccl, WorkThatStallsIsATimeOutOnEveryRank) {
  on_ranks(2, [](Communicator& bootstrap, int) {
    const auto group = make(bootstrap, 0.3);
    bootstrap.barrier();
    fake_nccl::stall();
    EXPECT_NE(failure([&] { group->barrier(); }).find("waited 0.3 s"), std::string::npos);
  });
  EXPECT_EQ(fake_nccl::aborts(), 2);
}

TEST_F(Nccl, ARankThatDoesNotStartIsATimeOut) {
  on_ranks(2, [](Communicator& bootstrap, int rank) {
    if (rank == 0) {
      EXPECT_EQ(
          failure([&] { make(bootstrap, 0.3); }),
          "rank 0 on node9: start in group 'world': waited 0.3 s (parallel.timeout): a rank is "
          "lost, stuck or doing something else");
    } else {
      at::Tensor id = at::empty({NCCL_UNIQUE_ID_BYTES}, at::kByte);
      bootstrap.broadcast(id, 0)->wait();  // and no more
    }
  });
  EXPECT_EQ(fake_nccl::aborts(), 1);
}

TEST_F(Nccl, ARankThatStopsEndsTheWaitsOfTheOthers) {
  on_ranks(3, [](Communicator& bootstrap, int rank) {
    const auto group = make(bootstrap);
    bootstrap.barrier();
    if (rank == 1) return exchanges_of_rank->tell_peers(2);
    const auto start = std::chrono::steady_clock::now();
    try {
      group->barrier();
      FAIL() << "rank 1 was not there";
    } catch (const PeerStopped& stopped) {
      EXPECT_EQ(stopped.exit_code(), 2);
      EXPECT_STREQ(stopped.what(), "rank 1 stopped with exit code 2");
    }
    EXPECT_LT(seconds_since(start), 10);
    EXPECT_NE(failure([&] { group->barrier(); }).find("aborted after an earlier error"),
              std::string::npos);
  });
}

constexpr int64_t kLarge = 1 << 18;  // floats: 1 MiB

TEST_F(Nccl, LargeBuffersAreRegisteredUntilTheHandleEnds) {
  on_ranks(2, [](Communicator& bootstrap, int) {
    const auto group = make(bootstrap);
    at::Tensor host = at::ones({kLarge});
    const at::Tensor small = at::ones({kLarge - 1});
    auto registration = group->register_buffers({on_device(host), on_device(small)});
    bootstrap.barrier();
    EXPECT_EQ(fake_nccl::registered(), 2);  // one a rank
    at::Tensor tensor = on_device(host);
    group->all_reduce(tensor)->wait();
    EXPECT_EQ(host[kLarge - 1].item<float>(), 2);
    tensor.reset();
    // The memory stays as long as NCCL knows it.
    const c10::weak_intrusive_ptr<at::TensorImpl> memory(host.getIntrusivePtr());
    host.reset();
    EXPECT_FALSE(memory.expired());
    bootstrap.barrier();
    registration.reset();
    EXPECT_TRUE(memory.expired());
    bootstrap.barrier();
    EXPECT_EQ(fake_nccl::registered(), 0);
    EXPECT_EQ(fake_nccl::registrations(), 2);
  });
  EXPECT_EQ(fake_nccl::aborts(), 2);  // when the groups ended
}

TEST_F(Nccl, WhatOneRankCannotRegisterNoRankHas) {
  on_ranks(2, [](Communicator& bootstrap, int rank) {
    const auto group = make(bootstrap);
    fake_nccl::refuse_memory(1);
    bootstrap.barrier();
    const at::Tensor host = at::full({kLarge}, rank);
    at::Tensor tensor = on_device(host);
    const auto registration = group->register_buffers({tensor});
    EXPECT_EQ(registration, nullptr);
    bootstrap.barrier();
    EXPECT_EQ(fake_nccl::registered(), 0);
    group->all_reduce(tensor)->wait();  // without
    EXPECT_EQ(host[0].item<float>(), 1);
  });
}

TEST_F(Nccl, NothingIsDeregisteredOfAGroupThatWasAborted) {
  on_ranks(2, [](Communicator& bootstrap, int) {
    auto group = make(bootstrap, 0.3);
    const at::Tensor host = at::ones({kLarge});
    at::Tensor tensor = on_device(host);
    auto registration = group->register_buffers({tensor});
    EXPECT_NE(registration, nullptr);
    bootstrap.barrier();
    fake_nccl::stall();
    EXPECT_NE(failure([&] { group->all_reduce(tensor)->wait(); }).find("waited 0.3 s"),
              std::string::npos);
    registration.reset();  // would end the process if it still asked NCCL
    bootstrap.barrier();
  });
  EXPECT_EQ(fake_nccl::aborts(), 2);
}

TEST_F(Nccl, BuffersOfWorkThatNobodyAwaitsEndWithTheGroup) {
  on_ranks(2, [](Communicator& bootstrap, int) {
    const auto group = make(bootstrap);
    const at::Tensor host = at::ones({kLarge});
    at::Tensor tensor = on_device(host);
    auto registration = group->register_buffers({tensor});
    bootstrap.barrier();
    fake_nccl::stall();
    const WorkPtr work = group->all_reduce(tensor);
    bootstrap.barrier();
    registration.reset();
    bootstrap.barrier();
    EXPECT_EQ(fake_nccl::aborts(), 2);
    EXPECT_NE(failure([&] { group->barrier(); }).find("aborted"), std::string::npos);
  });
}

TEST_F(Nccl, AGroupOfOneRegistersNothing) {
  on_ranks(1, [](Communicator& bootstrap, int) {
    const auto group = make(bootstrap);
    EXPECT_EQ(group->register_buffers({on_device(at::ones({kLarge}))}), nullptr);
  });
  EXPECT_EQ(fake_nccl::registrations(), 0);
}

TEST_F(Nccl, TakesContiguousTensorsOfTheDeviceAlone) {
  on_ranks(1, [](Communicator& bootstrap, int) {
    const auto group = make(bootstrap);
    at::Tensor host = at::ones({2, 2});
    const std::string line = "all_reduce 1: NCCL takes contiguous CUDA tensors";
    EXPECT_EQ(failure([&] { group->all_reduce(host); }), line);
    at::Tensor flags = on_device(at::ones({2}, at::kBool));
    EXPECT_EQ(failure([&] { group->all_reduce(flags); }), "NCCL cannot add Bool");
  });
}

}  // namespace

}  // namespace temper::parallel
