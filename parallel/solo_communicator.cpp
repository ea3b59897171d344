#include <ATen/ATen.h>

#include "parallel/communicator.h"
#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

class DoneWork : public Work {
 public:
  void wait() override {}
  bool done() override { return true; }
};

class SoloCommunicator : public Communicator {
 public:
  explicit SoloCommunicator(std::string name) : name_(std::move(name)) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string name() const override { return name_; }

  WorkPtr all_reduce(at::Tensor&, ReduceOp) override { return std::make_unique<DoneWork>(); }
  WorkPtr reduce_scatter(at::Tensor& output, const at::Tensor& input) override {
    return copy(output, input);
  }
  WorkPtr all_gather(at::Tensor& output, const at::Tensor& input) override {
    return copy(output, input);
  }
  WorkPtr broadcast(at::Tensor&, int) override { return std::make_unique<DoneWork>(); }
  WorkPtr all_to_all(at::Tensor& output, const at::Tensor& input) override {
    return copy(output, input);
  }
  WorkPtr send(const at::Tensor&, int, int) override { return no_peer(); }
  WorkPtr receive(at::Tensor&, int, int) override { return no_peer(); }
  void barrier() override {}
  std::unique_ptr<Communicator> split(int, int, const std::string& name) override {
    return std::make_unique<SoloCommunicator>(name);
  }

 private:
  static WorkPtr copy(at::Tensor& output, const at::Tensor& input) {
    output.view({-1}).copy_(input.view({-1}));
    return std::make_unique<DoneWork>();
  }
  WorkPtr no_peer() const {
    TEMPER_CHECK(false, "group '" + name_ + "' has one rank: nobody to send to or receive from");
    return nullptr;
  }

  std::string name_;
};

}  // namespace

std::unique_ptr<Communicator> make_solo_communicator() {
  return std::make_unique<SoloCommunicator>("solo");
}

}  // namespace temper::parallel
