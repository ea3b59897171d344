#include "parallel/paired_communicator.h"

#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace temper::parallel {
namespace {

// Remembers what it was asked.
class Recorder : public Communicator {
 public:
  Recorder(std::string wire, std::vector<std::string>& asked)
      : wire_(std::move(wire)), asked_(asked) {}
  ~Recorder() override { asked_.push_back(wire_ + " ends"); }
  int rank() const override { return 1; }
  int size() const override { return 2; }
  std::string name() const override { return "pair"; }
  WorkPtr all_reduce(at::Tensor&, ReduceOp) override { return note("all_reduce"); }
  WorkPtr reduce_scatter(at::Tensor&, const at::Tensor&) override { return note("reduce_scatter"); }
  WorkPtr all_gather(at::Tensor&, const at::Tensor&) override { return note("all_gather"); }
  WorkPtr broadcast(at::Tensor&, int) override { return note("broadcast"); }
  WorkPtr all_to_all(at::Tensor&, const at::Tensor&) override { return note("all_to_all"); }
  WorkPtr send(const at::Tensor&, int, int) override { return note("send"); }
  WorkPtr receive(at::Tensor&, int, int) override { return note("receive"); }
  void barrier() override { note("barrier"); }
  std::shared_ptr<void> register_buffers(const std::vector<at::Tensor>&) override {
    note("register_buffers");
    return {};
  }
  std::unique_ptr<Communicator> split(int, int, const std::string&) override {
    note("split");
    return std::make_unique<Recorder>(wire_ + "'s part", asked_);
  }

 private:
  WorkPtr note(const std::string& call) {
    asked_.push_back(wire_ + " " + call);
    return nullptr;
  }
  std::string wire_;
  std::vector<std::string>& asked_;
};

TEST(PairedCommunicator, SendsATensorByTheWireOfItsDevice) {
  std::vector<std::string> asked;
  auto pair = make_paired_communicator(std::make_unique<Recorder>("host", asked),
                                       std::make_unique<Recorder>("device", asked));
  at::Tensor here = at::zeros({2}), there = at::empty({2}, at::kMeta);
  const auto exchange = [&](at::Tensor& tensor) {
    asked.clear();
    pair->all_reduce(tensor);
    pair->reduce_scatter(tensor, tensor);
    pair->all_gather(tensor, tensor);
    pair->broadcast(tensor, 0);
    pair->all_to_all(tensor, tensor);
    pair->send(tensor, 0, 0);
    pair->receive(tensor, 0, 0);
    pair->register_buffers({tensor});
    return asked;
  };
  const std::vector<std::string> calls = {"all_reduce", "reduce_scatter", "all_gather",
                                          "broadcast",  "all_to_all",     "send",
                                          "receive",    "register_buffers"};
  const auto by = [&](const std::string& wire) {
    std::vector<std::string> lines;
    for (const std::string& call : calls) lines.push_back(wire + " " + call);
    return lines;
  };
  EXPECT_EQ(exchange(here), by("host"));
  EXPECT_EQ(exchange(there), by("device"));
}

TEST(PairedCommunicator, SplitsBothAndEndsTheDevicesFirst) {
  std::vector<std::string> asked;
  auto pair = make_paired_communicator(std::make_unique<Recorder>("host", asked),
                                       std::make_unique<Recorder>("device", asked));
  at::Tensor there = at::empty({2}, at::kMeta);
  pair->barrier();
  pair->split(0, 0, "part")->all_reduce(there);
  pair.reset();
  EXPECT_EQ(asked, (std::vector<std::string>{"host barrier", "host split", "device split",
                                             "device's part all_reduce", "device's part ends",
                                             "host's part ends", "device ends", "host ends"}));
}

}  // namespace
}  // namespace temper::parallel
