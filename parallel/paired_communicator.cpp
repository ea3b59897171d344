#include "parallel/paired_communicator.h"

#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

class PairedCommunicator : public Communicator {
 public:
  PairedCommunicator(std::unique_ptr<Communicator> host, std::unique_ptr<Communicator> device)
      : host_(std::move(host)), device_(std::move(device)) {
    TEMPER_CHECK(host_->rank() == device_->rank() && host_->size() == device_->size(),
                 "two wires of one group");
  }

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  std::string name() const override { return host_->name(); }

  WorkPtr all_reduce(at::Tensor& tensor, ReduceOp op) override {
    return for_tensor(tensor).all_reduce(tensor, op);
  }
  WorkPtr reduce_scatter(at::Tensor& output, const at::Tensor& input) override {
    return for_tensor(input).reduce_scatter(output, input);
  }
  WorkPtr all_gather(at::Tensor& output, const at::Tensor& input) override {
    return for_tensor(input).all_gather(output, input);
  }
  WorkPtr broadcast(at::Tensor& tensor, int root) override {
    return for_tensor(tensor).broadcast(tensor, root);
  }
  WorkPtr all_to_all(at::Tensor& output, const at::Tensor& input) override {
    return for_tensor(input).all_to_all(output, input);
  }
  WorkPtr send(const at::Tensor& tensor, int peer, int tag) override {
    return for_tensor(tensor).send(tensor, peer, tag);
  }
  WorkPtr receive(at::Tensor& tensor, int peer, int tag) override {
    return for_tensor(tensor).receive(tensor, peer, tag);
  }
  void barrier() override { host_->barrier(); }
  void heed_peers() override { host_->heed_peers(); }
  std::shared_ptr<void> register_buffers(const std::vector<at::Tensor>& buffers) override {
    return buffers.empty() ? nullptr : for_tensor(buffers.front()).register_buffers(buffers);
  }

  std::unique_ptr<Communicator> split(int color, int key, const std::string& name) override {
    std::unique_ptr<Communicator> host = host_->split(color, key, name);
    std::unique_ptr<Communicator> device = device_->split(color, key, name);
    return make_paired_communicator(std::move(host), std::move(device));
  }

 private:
  Communicator& for_tensor(const at::Tensor& tensor) const {
    return tensor.is_cpu() ? *host_ : *device_;
  }

  std::unique_ptr<Communicator> host_;
  std::unique_ptr<Communicator> device_;  // destroyed first
};

}  // namespace

std::unique_ptr<Communicator> make_paired_communicator(std::unique_ptr<Communicator> host,
                                                       std::unique_ptr<Communicator> device) {
  return std::make_unique<PairedCommunicator>(std::move(host), std::move(device));
}

}  // namespace temper::parallel
