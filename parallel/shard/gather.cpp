#include "parallel/shard/gather.h"

#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "parallel/shard/shard_plan.h"

namespace temper::parallel {
namespace {

struct Gather {
  size_t bucket = 0;
  at::Tensor all;  // [shards, segment]
  at::Tensor own_bytes, all_bytes;
  WorkPtr work;
};

class Gatherer {
 public:
  Gatherer(const std::vector<at::Tensor>& tensors, const BucketPlan& plan, Communicator& group)
      : plan_(plan), group_(group) {
    std::vector<int64_t> sizes;
    for (const at::Tensor& tensor : tensors) {
      flat_.push_back(tensor.detach().view({-1}));
      sizes.push_back(tensor.numel());
    }
    pieces_.resize(plan.bucket_sizes.size());
    for (int64_t shard = 0; shard < group.size(); ++shard) {
      for (const ShardPiece& piece : shard_pieces(plan, sizes, group.size(), shard)) {
        pieces_[piece.bucket].emplace_back(shard, piece);
      }
    }
  }

  Gather start(size_t bucket) const {
    const int64_t segment = plan_.bucket_sizes[bucket] / group_.size();
    Gather gather;
    gather.bucket = bucket;
    gather.all = at::empty({group_.size(), segment}, type_of(bucket));
    const at::Tensor own = at::empty({segment}, gather.all.options());
    for (const auto& [shard, piece] : pieces_[bucket]) {
      if (shard == group_.rank()) own.narrow(0, piece.offset, piece.count).copy_(part(piece));
    }
    // As bytes: not every type is MPI's.
    gather.own_bytes = own.view(at::kByte);
    gather.all_bytes = gather.all.view({-1}).view(at::kByte);
    gather.work = group_.all_gather(gather.all_bytes, gather.own_bytes);
    return gather;
  }

  void finish(const Gather& gather) const {
    gather.work->wait();
    for (const auto& [shard, piece] : pieces_[gather.bucket]) {
      if (shard == group_.rank()) continue;
      part(piece).copy_(gather.all[shard].narrow(0, piece.offset, piece.count));
    }
  }

 private:
  at::Tensor part(const ShardPiece& piece) const {
    return flat_[piece.parameter].narrow(0, piece.begin, piece.count);
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

  const BucketPlan& plan_;
  Communicator& group_;
  std::vector<at::Tensor> flat_;
  std::vector<std::vector<std::pair<int64_t, ShardPiece>>> pieces_;  // of each bucket, with shard
};

}  // namespace

void gather_shards(const std::vector<at::Tensor>& tensors, const BucketPlan& plan,
                   Communicator& group) {
  const at::NoGradGuard off;
  const Gatherer gatherer(tensors, plan, group);
  std::optional<Gather> before;
  for (size_t bucket = 0; bucket < plan.bucket_sizes.size(); ++bucket) {
    Gather gather = gatherer.start(bucket);
    if (before) gatherer.finish(*before);
    before = std::move(gather);
  }
  if (before) gatherer.finish(*before);
}

}  // namespace temper::parallel
