// A plugin as the program loads one (TEMPER_PLUGIN), whose device is emulated: the program runs on
// it as it runs on CUDA, where there is no GPU.
#include "parallel/plugin.h"

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include <ATen/ATen.h>
#include <cuda_runtime_api.h>

#include "tests/gpu/emulator/memory.h"
#include "tests/gpu/emulator/recording.h"

namespace temper::emulator {

namespace {

using parallel::Communicator;
using parallel::ReduceOp;
using parallel::WorkPtr;

class Done : public parallel::Work {
 public:
  void wait() override {}
  bool done() override { return true; }
};

/// Tensors of the device by way of the host, each call done when it returns.
class DeviceCommunicator : public Communicator {
 public:
  explicit DeviceCommunicator(std::unique_ptr<Communicator> host) : host_(std::move(host)) {}
  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  std::string name() const override { return host_->name(); }

  WorkPtr all_reduce(at::Tensor& tensor, ReduceOp op) override {
    return in_place(tensor, [&](at::Tensor& here) { return host_->all_reduce(here, op); });
  }
  WorkPtr broadcast(at::Tensor& tensor, int root) override {
    return in_place(tensor, [&](at::Tensor& here) { return host_->broadcast(here, root); });
  }
  WorkPtr reduce_scatter(at::Tensor& output, const at::Tensor& input) override {
    return between(output, input, &Communicator::reduce_scatter);
  }
  WorkPtr all_gather(at::Tensor& output, const at::Tensor& input) override {
    return between(output, input, &Communicator::all_gather);
  }
  WorkPtr all_to_all(at::Tensor& output, const at::Tensor& input) override {
    return between(output, input, &Communicator::all_to_all);
  }
  WorkPtr send(const at::Tensor& tensor, int peer, int tag) override {
    check(tensor);
    host_->send(tensor.cpu(), peer, tag)->wait();
    return std::make_unique<Done>();
  }
  WorkPtr receive(at::Tensor& tensor, int peer, int tag) override {
    return in_place(tensor, [&](at::Tensor& here) { return host_->receive(here, peer, tag); });
  }
  void barrier() override { host_->barrier(); }
  std::unique_ptr<Communicator> split(int color, int key, const std::string& name) override {
    return std::make_unique<DeviceCommunicator>(host_->split(color, key, name));
  }

 private:
  static void check(const at::Tensor& tensor) {
    TORCH_CHECK(tensor.is_privateuseone() && tensor.is_contiguous(),
                "a device's communicator takes contiguous tensors of it");
  }

  template <class Exchange>
  static WorkPtr in_place(at::Tensor& tensor, const Exchange& exchange) {
    check(tensor);
    at::Tensor here = tensor.cpu();
    exchange(here)->wait();
    tensor.copy_(here);
    return std::make_unique<Done>();
  }

  WorkPtr between(at::Tensor& output, const at::Tensor& input,
                  WorkPtr (Communicator::*exchange)(at::Tensor&, const at::Tensor&)) {
    check(output);
    check(input);
    const at::Tensor from = input.cpu();
    at::Tensor to = at::empty(output.sizes(), from.options());
    (host_.get()->*exchange)(to, from)->wait();
    output.copy_(to);
    return std::make_unique<Done>();
  }

  std::unique_ptr<Communicator> host_;
};

int device_count(std::string&) { return 4; }
int compute_capability(int) { return 90; }

std::string device_name(int) { return "emulated device"; }

std::unique_ptr<Communicator> make_communicator(Communicator& bootstrap, int, const std::string&,
                                                double) {
  return std::make_unique<DeviceCommunicator>(
      bootstrap.split(0, bootstrap.rank(), bootstrap.name()));
}

// The host's, which the device may touch too.
void* allocate_unified(size_t bytes) { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); }
void prefetch_unified(const void*, size_t, int, CUstream_st*) {}

const bool kernels_are_watched = [] {
  ::emulator::opens = [](bool begins) {
    thread_local std::unique_ptr<Working> now;
    now = begins ? std::make_unique<Working>() : nullptr;
  };
  ::emulator::launched = &record_step;
  return true;
}();

}  // namespace

}  // namespace temper::emulator

extern "C" const temper::parallel::CudaPlugin* temper_cuda_plugin() {
  static const temper::parallel::CudaPlugin plugin = {
      .device_count = temper::emulator::device_count,
      .device_name = temper::emulator::device_name,
      .compute_capability = temper::emulator::compute_capability,
      .make_communicator = temper::emulator::make_communicator,
      .allocate_unified = temper::emulator::allocate_unified,
      .free_unified = std::free,
      .prefetch_unified = temper::emulator::prefetch_unified,
      .record = temper::emulator::record,
      .type = c10::DeviceType::PrivateUse1};
  return &plugin;
}
