#include "trainer/sharded_parameters.h"

#include <chrono>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "parallel/shard/gather.h"
#include "recipes/diagnostic.h"
#include "trainer/checkpoint/piece.h"

namespace temper::trainer {
namespace {

at::Tensor flat_part(const at::Tensor& tensor, const parallel::ShardPiece& piece) {
  return tensor.detach().view({-1}).narrow(0, piece.begin, piece.count);
}

Parameter make_piece(const Parameter& whole, const parallel::ShardPiece& place,
                     const at::Tensor& gradient) {
  Parameter piece = whole;
  piece.name = Piece{.whole = whole.name,
                     .begin = place.begin,
                     .end = place.begin + place.count,
                     .shape = whole.value.sizes().vec()}
                   .name();
  piece.value = flat_part(whole.value, place);
  piece.master = whole.master.is_same(whole.value) ? piece.value
                                                   : flat_part(whole.master, place).clone();
  piece.value.requires_grad_(true).mutable_grad() = gradient;
  return piece;
}

}  // namespace

ShardedParameters::ShardedParameters(std::vector<Parameter>& parameters,
                                     const parallel::GradientReducer& reducer,
                                     parallel::Communicator& group, bool keep_masters)
    : plan_(reducer.plan()), group_(group) {
  std::vector<int64_t> sizes;
  for (const Parameter& parameter : parameters) {
    if (parameter.trainable()) sizes.push_back(parameter.value.numel());
  }
  places_ = parallel::shard_pieces(plan_, sizes, group.size(), group.rank());
  for (Parameter& parameter : parameters) {
    if (!parameter.trainable()) continue;
    while (pieces_.size() < places_.size() && places_[pieces_.size()].parameter == whole_.size()) {
      const parallel::ShardPiece& place = places_[pieces_.size()];
      pieces_.push_back(
          make_piece(parameter, place,
                     reducer.segments()[place.bucket].narrow(0, place.offset, place.count)));
    }
    if (!keep_masters && !parameter.master.is_same(parameter.value)) parameter.master.reset();
    whole_.push_back(parameter);
  }
}

double ShardedParameters::gather_values() {
  const auto start = std::chrono::steady_clock::now();
  std::vector<at::Tensor> values;
  for (const Parameter& parameter : whole_) values.push_back(parameter.value);
  parallel::gather_shards(values, plan_, group_);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void ShardedParameters::refresh_values() {
  const at::NoGradGuard off;
  for (Parameter& piece : pieces_) {
    if (!piece.master.is_same(piece.value)) piece.value.copy_(piece.master.to(piece.dtype));
  }
  gather_values();
}

void ShardedParameters::gather_masters() {
  const at::NoGradGuard off;
  std::vector<at::Tensor> masters;
  for (const Parameter& parameter : whole_) {
    TEMPER_CHECK(parameter.master.defined(), parameter.name + ": its master was not kept");
    masters.push_back(parameter.master);
  }
  for (size_t i = 0; i < pieces_.size(); ++i) {
    flat_part(masters[places_[i].parameter], places_[i]).copy_(pieces_[i].master);
  }
  parallel::gather_shards(masters, plan_, group_);
}

}  // namespace temper::trainer
