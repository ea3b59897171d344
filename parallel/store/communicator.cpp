#include "parallel/store/communicator.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>

#include "parallel/trace.h"
#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

using Take = std::function<void(const std::vector<std::string>& parts)>;

void check_tensor(const at::Tensor& tensor) {
  TEMPER_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(),
               "the store takes contiguous CPU tensors");
}

char* data_of(const at::Tensor& tensor) { return static_cast<char*>(tensor.data_ptr()); }

std::string bytes_of(const at::Tensor& tensor) { return {data_of(tensor), tensor.nbytes()}; }

/// The `count` elements from `first` on.
at::Tensor run_of(const at::Tensor& tensor, int64_t first, int64_t count) {
  return tensor.view({-1}).narrow(0, first, count);
}

void write_to(const at::Tensor& tensor, const std::string& bytes) {
  TEMPER_CHECK(tensor.nbytes() == bytes.size(), "a part has the size of the tensor it goes to");
  std::memcpy(data_of(tensor), bytes.data(), bytes.size());
}

void combine(const at::Tensor& total, const std::vector<std::string>& parts, ReduceOp op) {
  write_to(total, parts.front());
  at::Tensor part = at::empty_like(total);
  for (size_t i = 1; i < parts.size(); ++i) {
    write_to(part, parts[i]);
    switch (op) {
      case ReduceOp::kSum:
        total.add_(part);
        break;
      case ReduceOp::kMax:
        total.copy_(at::maximum(total, part));
        break;
      case ReduceOp::kMin:
        total.copy_(at::minimum(total, part));
        break;
    }
  }
}

class StoreWork : public Work {
 public:
  StoreWork(std::shared_ptr<StoreExchange> exchange, Parts parts, Take take, double timeout_seconds)
      : exchange_(std::move(exchange)),
        parts_(std::move(parts)),
        take_(std::move(take)),
        timeout_seconds_(timeout_seconds) {}

  void wait() override {
    if (!take_) return;
    const TraceSpan span("exposed wait");
    std::exchange(take_, nullptr)(exchange_->take(parts_, timeout_seconds_));
  }
  bool done() override { return !take_ || exchange_->are_there(parts_); }

 private:
  std::shared_ptr<StoreExchange> exchange_;
  Parts parts_;
  Take take_;  // empty: nothing to take, or it is done
  double timeout_seconds_;
};

class StoreCommunicator : public Communicator {
 public:
  /// `ranks`: of the group, as the world counts them; `id`: begins the keys of this group alone.
  StoreCommunicator(std::shared_ptr<StoreExchange> exchange, std::string id, std::string name,
                    std::vector<int> ranks, double timeout_seconds)
      : exchange_(std::move(exchange)),
        id_(std::move(id)),
        name_(std::move(name)),
        ranks_(std::move(ranks)),
        timeout_seconds_(timeout_seconds) {
    const auto own = std::find(ranks_.begin(), ranks_.end(), exchange_->world().rank);
    rank_ = static_cast<int>(own - ranks_.begin());
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(ranks_.size()); }
  std::string name() const override { return name_; }

  WorkPtr all_reduce(at::Tensor& tensor, ReduceOp op) override {
    check_tensor(tensor);
    return share("all_reduce", bytes_of(tensor),
                 [tensor, op](const auto& parts) { combine(tensor, parts, op); });
  }

  WorkPtr reduce_scatter(at::Tensor& output, const at::Tensor& input) override {
    check_blocks(output, input);
    return scatter("reduce_scatter", input,
                   [output](const auto& parts) { combine(output, parts, ReduceOp::kSum); });
  }

  WorkPtr all_gather(at::Tensor& output, const at::Tensor& input) override {
    check_blocks(input, output);
    return share("all_gather", bytes_of(input), blocks_to(output));
  }

  WorkPtr broadcast(at::Tensor& tensor, int root) override {
    check_tensor(tensor);
    Parts parts = next("broadcast");
    add(parts, root);
    parts.takers = size() - 1;
    if (rank_ != root)
      return work(std::move(parts),
                  [tensor](const auto& taken) { write_to(tensor, taken.front()); });
    if (size() > 1) exchange_->leave(parts.keys.front(), bytes_of(tensor));
    return work(std::move(parts), nullptr);
  }

  WorkPtr all_to_all(at::Tensor& output, const at::Tensor& input) override {
    check_tensor(output);
    check_tensor(input);
    TEMPER_CHECK(output.nbytes() == input.nbytes() && input.numel() % size() == 0,
                 "all_to_all takes two tensors of one block a rank");
    return scatter("all_to_all", input, blocks_to(output));
  }

  WorkPtr send(const at::Tensor& tensor, int peer, int tag) override {
    check_tensor(tensor);
    Parts parts = message("send to rank ", rank_, peer, tag);
    exchange_->leave(parts.keys.front(), bytes_of(tensor));
    return work(std::move(parts), nullptr);
  }

  WorkPtr receive(at::Tensor& tensor, int peer, int tag) override {
    check_tensor(tensor);
    return work(message("receive from rank ", peer, rank_, tag),
                [tensor](const auto& taken) { write_to(tensor, taken.front()); });
  }

  void barrier() override {
    share("barrier", "", [](const auto&) {})->wait();
  }

  void heed_peers() override { exchange_->heed_peers(); }

  std::unique_ptr<Communicator> split(int color, int key, const std::string& name) override {
    const std::string id = id_ + "." + std::to_string(++splits_) + "." + std::to_string(color);
    const at::Tensor own = at::tensor({color, key}, at::kInt);
    at::Tensor all = at::empty({size(), 2}, at::kInt);
    all_gather(all, own)->wait();
    const auto chosen = all.accessor<int, 2>();
    std::vector<std::pair<int, int>> members;  // key, rank of the world
    for (int rank = 0; rank < size(); ++rank) {
      if (chosen[rank][0] == color) members.emplace_back(chosen[rank][1], ranks_[rank]);
    }
    std::stable_sort(members.begin(), members.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<int> ranks;
    for (const auto& [order, rank] : members) ranks.push_back(rank);
    return std::make_unique<StoreCommunicator>(exchange_, id, name, std::move(ranks),
                                               timeout_seconds_);
  }

 private:
  WorkPtr work(Parts parts, Take take) const {
    return std::make_unique<StoreWork>(exchange_, std::move(parts), std::move(take),
                                       timeout_seconds_);
  }

  /// The next collective, without parts.
  Parts next(const char* name) {
    const std::string number = std::to_string(++sequence_);
    return {.what = name + (" " + number) + " in group '" + name_ + "'",
            .base = id_ + "/" + name + "/" + number};
  }

  void add(Parts& parts, int rank, const std::string& to = "") const {
    parts.keys.push_back(parts.base + "/" + std::to_string(rank) + to);
    parts.from.push_back(ranks_[rank]);
  }

  /// One part of each rank, for all.
  WorkPtr share(const char* name, const std::string& own, Take take) {
    Parts parts = next(name);
    for (int rank = 0; rank < size(); ++rank) add(parts, rank);
    parts.takers = size();
    exchange_->leave(parts.keys[rank_], own);
    return work(std::move(parts), std::move(take));
  }

  /// One part of each rank for each: the blocks of `input`.
  WorkPtr scatter(const char* name, const at::Tensor& input, Take take) {
    Parts parts = next(name);
    const int64_t block = input.numel() / size();
    const std::string own = parts.base + "/" + std::to_string(rank_) + ">";
    for (int rank = 0; rank < size(); ++rank) {
      add(parts, rank, ">" + std::to_string(rank_));
      exchange_->leave(own + std::to_string(rank), bytes_of(run_of(input, rank * block, block)));
    }
    return work(std::move(parts), std::move(take));
  }

  /// The parts, one after the other.
  static Take blocks_to(const at::Tensor& output) {
    return [output](const std::vector<std::string>& parts) {
      const int64_t block = output.numel() / static_cast<int64_t>(parts.size());
      for (size_t i = 0; i < parts.size(); ++i)
        write_to(run_of(output, static_cast<int64_t>(i) * block, block), parts[i]);
    };
  }

  Parts message(const char* what, int from, int to, int tag) {
    const std::string way =
        std::to_string(from) + ">" + std::to_string(to) + "/" + std::to_string(tag);
    Parts parts{
        .what = what + std::to_string(from == rank_ ? to : from) + " in group '" + name_ + "'",
        .base = id_ + "/message/" + way + "/" + std::to_string(++messages_[way])};
    add(parts, from);
    return parts;
  }

  void check_blocks(const at::Tensor& block, const at::Tensor& all) const {
    check_tensor(block);
    check_tensor(all);
    TEMPER_CHECK(block.scalar_type() == all.scalar_type() && block.numel() * size() == all.numel(),
                 "the larger tensor has one block of the smaller for each rank");
  }

  std::shared_ptr<StoreExchange> exchange_;
  std::string id_;
  std::string name_;
  std::vector<int> ranks_;
  double timeout_seconds_;
  int rank_ = 0;
  int64_t sequence_ = 0;
  int64_t splits_ = 0;
  std::map<std::string, int64_t> messages_;  // by sender, receiver and tag
};

}  // namespace

std::unique_ptr<Communicator> make_store_communicator(std::shared_ptr<StoreExchange> exchange,
                                                      const std::string& id,
                                                      const std::string& name,
                                                      double timeout_seconds) {
  std::vector<int> ranks(exchange->world().size);
  std::iota(ranks.begin(), ranks.end(), 0);
  return std::make_unique<StoreCommunicator>(std::move(exchange), id, name, std::move(ranks),
                                             timeout_seconds);
}

}  // namespace temper::parallel
