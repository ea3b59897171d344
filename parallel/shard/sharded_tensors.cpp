#include "parallel/shard/sharded_tensors.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "recipes/diagnostic.h"

namespace temper::parallel {
namespace {

// What it held is lost.
void resize(const c10::Storage& storage, size_t bytes) {
  storage.set_data_ptr_noswap(c10::GetAllocator(storage.device_type())->allocate(bytes));
  storage.set_nbytes(bytes);
}

}  // namespace

ShardedTensors::ShardedTensors(const std::vector<at::Tensor>& tensors, int64_t bucket_elements,
                               Communicator& group)
    : group_(group) {
  const at::NoGradGuard off;
  std::vector<int64_t> sizes;
  for (const at::Tensor& tensor : tensors) {
    TEMPER_CHECK(tensor.is_contiguous() && tensor.scalar_type() == tensors.front().scalar_type(),
                 "tensors of one type are sharded together");
    // Not detach(): writing what a gather brings back is no change that autograd should see.
    tensors_.push_back(tensor.variable_data().view({-1}));
    sizes.push_back(tensor.numel());
    const c10::Storage& storage = tensor.storage();
    const bool known = std::any_of(storages_.begin(), storages_.end(), [&](const Storage& other) {
      return other.storage.is_alias_of(storage);
    });
    if (!known) storages_.push_back({storage, storage.nbytes()});
  }
  plan_ = plan_buckets(sizes, bucket_elements, group.size());
  for (const int64_t size : plan_.bucket_sizes) {
    Bucket& bucket = buckets_.emplace_back();
    bucket.own = at::zeros({size / group.size()}, tensors_.front().options());
    bucket.own_bytes = bucket.own.view(at::kByte);
  }
  places_ = shard_pieces(plan_, sizes, group.size(), group.rank());
  for (const ShardPiece& place : places_) {
    pieces_.push_back(buckets_[place.bucket].own.narrow(0, place.offset, place.count));
    pieces_.back().copy_(tensors_[place.parameter].narrow(0, place.begin, place.count));
  }
}

void ShardedTensors::start() {
  for (size_t i = 0; i < buckets_.size(); ++i) {
    Bucket& bucket = buckets_[i];
    bucket.all = at::empty({plan_.bucket_sizes[i]}, bucket.own.options());
    bucket.all_bytes = bucket.all.view(at::kByte);
    bucket.work = group_.all_gather(bucket.all_bytes, bucket.own_bytes);
  }
}

void ShardedTensors::finish() {
  const at::NoGradGuard off;
  for (const Storage& storage : storages_) {
    if (storage.storage.nbytes() == 0) resize(storage.storage, storage.bytes);
  }
  for (size_t i = 0; i < buckets_.size(); ++i) {
    Bucket& bucket = buckets_[i];
    bucket.work->wait();
    for (size_t t = 0; t < tensors_.size(); ++t) {
      if (plan_.slots[t].bucket != static_cast<int64_t>(i)) continue;
      tensors_[t].copy_(bucket.all.narrow(0, plan_.slots[t].offset, tensors_[t].numel()));
    }
    bucket.work.reset();
    bucket.all.reset();
    bucket.all_bytes.reset();
  }
}

void ShardedTensors::release() {
  for (const Storage& storage : storages_) resize(storage.storage, 0);
}

}  // namespace temper::parallel
