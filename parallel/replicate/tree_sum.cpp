#include "parallel/replicate/tree_sum.h"

#include <bit>
#include <utility>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"

namespace temper::parallel {
namespace {

int64_t twos(int64_t n) { return std::countr_zero(static_cast<uint64_t>(n)); }

// parts[0] becomes the sum of all parts: the tree's upper levels.
void add_in_pairs(at::Tensor& parts) {
  for (int64_t step = 1; step < parts.size(0); step *= 2) {
    for (int64_t i = 0; i < parts.size(0); i += 2 * step) parts[i].add_(parts[i + step]);
  }
}

// Every rank has its part of everybody's tensor, and adds them up itself.
class TreeReduceScatter : public Work {
 public:
  TreeReduceScatter(at::Tensor& output, const at::Tensor& input, Communicator& communicator)
      : output_(output), parts_(at::empty({communicator.size(), output.numel()}, input.options())) {
    scattered_ = communicator.all_to_all(parts_, input);
  }

  void wait() override {
    if (!output_.defined()) return;
    scattered_->wait();
    add_in_pairs(parts_);
    output_.view({-1}).copy_(parts_[0]);
    output_.reset();
  }
  bool done() override { return !output_.defined() || scattered_->done(); }

 private:
  at::Tensor output_, parts_;
  WorkPtr scattered_;
};

// The same, and all parts are gathered.
class TreeAllReduce : public Work {
 public:
  TreeAllReduce(at::Tensor& tensor, Communicator& communicator)
      : communicator_(communicator), tensor_(tensor) {
    const int64_t ranks = communicator.size();
    const int64_t part = (tensor.numel() + ranks - 1) / ranks;
    own_ = at::zeros({ranks, part}, tensor.options());
    own_.view({-1}).narrow(0, 0, tensor.numel()).copy_(tensor.view({-1}));
    parts_ = at::empty_like(own_);
    scattered_ = communicator.all_to_all(parts_, own_);
  }

  void wait() override {
    if (!tensor_.defined()) return;
    scattered_->wait();
    add_in_pairs(parts_);
    communicator_.all_gather(own_, parts_[0])->wait();
    tensor_.view({-1}).copy_(own_.view({-1}).narrow(0, 0, tensor_.numel()));
    tensor_.reset();
  }
  bool done() override { return !tensor_.defined(); }

 private:
  Communicator& communicator_;
  at::Tensor tensor_, own_, parts_;
  WorkPtr scattered_;
};

}  // namespace

TreeSum::TreeSum(std::vector<at::Tensor> live, int64_t micro_batches)
    : live_(std::move(live)), leaf_(micro_batches >> twos(micro_batches)) {}

int64_t TreeSum::levels(int64_t micro_batches) { return twos(micro_batches); }

void TreeSum::begin() { begun_ = 0; }

void TreeSum::next() {
  const int64_t ended = begun_++;
  if (ended == 0 || ended % leaf_ != 0) return;
  // A binary counter: where a leaf's number has ones at its end, what stands there is added.
  const int64_t level = std::countr_one(static_cast<uint64_t>(ended / leaf_ - 1));
  if (aside_.size() <= static_cast<size_t>(level)) {
    aside_.emplace_back();
    for (const at::Tensor& tensor : live_) aside_.back().push_back(at::empty_like(tensor));
  }
  for (size_t i = 0; i < live_.size(); ++i) {
    for (int64_t below = 0; below < level; ++below) live_[i].add_(aside_[below][i]);
    aside_[level][i].copy_(live_[i]);
    live_[i].zero_();
  }
}

void TreeSum::complete(size_t i) {
  if (begun_ == 0) return;
  const auto leaf = static_cast<uint64_t>((begun_ - 1) / leaf_);
  for (size_t level = 0; level < aside_.size(); ++level) {
    if (leaf >> level & 1) live_[i].add_(aside_[level][i]);
  }
}

namespace {

// The sum of two does not depend on their order.
bool any_order_will_do(const Communicator& communicator) {
  TEMPER_CHECK(std::has_single_bit(static_cast<uint64_t>(communicator.size())),
               "a power of two of ranks");
  return communicator.size() <= 2;
}

}  // namespace

WorkPtr tree_all_reduce(at::Tensor& tensor, Communicator& communicator) {
  if (any_order_will_do(communicator)) return communicator.all_reduce(tensor);
  return std::make_unique<TreeAllReduce>(tensor, communicator);
}

WorkPtr tree_reduce_scatter(at::Tensor& output, const at::Tensor& input,
                            Communicator& communicator) {
  if (any_order_will_do(communicator)) return communicator.reduce_scatter(output, input);
  return std::make_unique<TreeReduceScatter>(output, input, communicator);
}

}  // namespace temper::parallel
