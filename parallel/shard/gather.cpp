#include "parallel/shard/gather.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "parallel/shard/shard_plan.h"

namespace temper::parallel {
namespace {

// The elements [begin, begin + count) of every rank's segment of a bucket.
struct Window {
  size_t bucket = 0;
  int64_t begin = 0;
  int64_t count = 0;
};

struct Gather {
  Window window;
  at::Tensor all;  // [shards, count]
  at::Tensor own_bytes, all_bytes;
  WorkPtr work;
};

class Gatherer {
 public:
  Gatherer(const std::vector<at::Tensor>& tensors, const BucketPlan& plan, Communicator& group)
      : group_(group) {
    std::vector<int64_t> sizes;
    for (const at::Tensor& tensor : tensors) {
      flat_.push_back(tensor.defined() ? tensor.detach().view({-1}) : at::Tensor());
      sizes.push_back(tensor.defined() ? tensor.numel() : 0);
    }
    pieces_.resize(plan.bucket_sizes.size());
    for (int64_t shard = 0; shard < group.size(); ++shard) {
      for (const ShardPiece& piece : shard_pieces(plan, sizes, group.size(), shard)) {
        pieces_[piece.bucket].emplace_back(shard, piece);
      }
    }
  }

  bool has_bucket(size_t bucket) const { return !pieces_[bucket].empty(); }

  Gather start(const Window& window) const {
    Gather gather;
    gather.window = window;
    gather.all = at::empty({group_.size(), window.count}, type_of(window.bucket));
    const at::Tensor own = at::empty({window.count}, gather.all.options());
    for_each_part(window, [&](int64_t shard, const at::Tensor& part, int64_t offset) {
      if (shard == group_.rank()) own.narrow(0, offset, part.numel()).copy_(part);
    });
    // As bytes: not every type is MPI's.
    gather.own_bytes = own.view(at::kByte);
    gather.all_bytes = gather.all.view({-1}).view(at::kByte);
    gather.work = group_.all_gather(gather.all_bytes, gather.own_bytes);
    return gather;
  }

  void finish(const Gather& gather) const {
    gather.work->wait();
    for_each_part(gather.window, [&](int64_t shard, const at::Tensor& part, int64_t offset) {
      if (shard != group_.rank()) part.copy_(gather.all[shard].narrow(0, offset, part.numel()));
    });
  }

 private:
  // Calls do_part(rank, its part of a tensor, where that is in the window).
  template <typename Do>
  void for_each_part(const Window& window, const Do& do_part) const {
    for (const auto& [shard, piece] : pieces_[window.bucket]) {
      const int64_t begin = std::max(piece.offset, window.begin);
      const int64_t end = std::min(piece.offset + piece.count, window.begin + window.count);
      if (begin >= end) continue;
      const at::Tensor& tensor = flat_[piece.parameter];
      do_part(shard, tensor.narrow(0, piece.begin + begin - piece.offset, end - begin),
              begin - window.begin);
    }
  }

  // float32 where a bucket's tensors differ: it holds the others' values exactly.
  at::ScalarType type_of(size_t bucket) const {
    std::optional<at::ScalarType> type;
    for (const auto& [shard, piece] : pieces_[bucket]) {
      const at::ScalarType found = flat_[piece.parameter].scalar_type();
      if (type.value_or(found) != found) return at::kFloat;
      type = found;
    }
    return type.value_or(at::kFloat);
  }

  Communicator& group_;
  std::vector<at::Tensor> flat_;
  std::vector<std::vector<std::pair<int64_t, ShardPiece>>> pieces_;  // of each bucket, with shard
};

}  // namespace

void gather_shards(const std::vector<at::Tensor>& tensors, const BucketPlan& plan,
                   Communicator& group) {
  const at::NoGradGuard off;
  const Gatherer gatherer(tensors, plan, group);
  const bool on_device = std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) {
    return tensor.defined() && !tensor.is_cpu();
  });
  const int64_t most = std::max<int64_t>(
      1, (on_device ? kGatheredOnDevice : kGatheredElements) / group.size());
  std::optional<Gather> before;
  for (size_t bucket = 0; bucket < plan.bucket_sizes.size(); ++bucket) {
    if (!gatherer.has_bucket(bucket)) continue;
    const int64_t segment = plan.bucket_sizes[bucket] / group.size();
    for (int64_t begin = 0; begin < segment; begin += most) {
      Gather gather = gatherer.start({bucket, begin, std::min(most, segment - begin)});
      if (before) gatherer.finish(*before);
      before = std::move(gather);
    }
  }
  if (before) gatherer.finish(*before);
}

}  // namespace temper::parallel
