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

Parameter make_piece(const Parameter& whole, const parallel::ShardPiece& place, const ShardedBlocks::Piece& own,
                     const at::Tensor& gradient) {
  TEMPER_CHECK(own.begin == place.begin && own.value.numel() == place.count, "values are cut as gradients are");
  Parameter piece = whole;
  piece.name = piece_name(whole.name, whole.value.sizes(), place.begin, place.count);
  piece.value = own.value;
  piece.master = own.master;
  piece.value.requires_grad_(true).mutable_grad() = gradient;
  return piece;
}

bool master_is_own(const Parameter& whole) { return !whole.master.is_same(whole.value); }

// Of a tensor that stays whole: a view of its value, and of its master where that does, too.
ShardedBlocks::Piece cut_piece(const Parameter& whole, const parallel::ShardPiece& place, bool keep_master) {
  const at::Tensor value = flat_part(whole.value, place);
  if (!master_is_own(whole)) return {.begin = place.begin, .value = value, .master = value};
  const at::Tensor master = flat_part(whole.master, place);
  return {.begin = place.begin, .value = value, .master = keep_master ? master : master.clone()};
}

}  // namespace

ShardedParameters::ShardedParameters(std::vector<Parameter>& parameters,
                                     const parallel::GradientReducer& reducer,
                                     parallel::Communicator& group, bool keep_masters,
                                     const ShardedBlocks* blocks)
    : plan_(reducer.plan()), group_(group) {
  std::vector<int64_t> sizes;
  for (const Parameter& parameter : parameters) {
    if (parameter.trainable()) sizes.push_back(parameter.value.numel());
  }
  const std::vector<parallel::ShardPiece> places = parallel::shard_pieces(plan_, sizes, group.size(), group.rank());
  for (Parameter& parameter : parameters) {
    if (!parameter.trainable()) continue;
    const bool held = blocks && blocks->holds(parameter);
    for (size_t of_parameter = 0; pieces_.size() < places.size(); ++of_parameter) {
      const parallel::ShardPiece& place = places[pieces_.size()];
      if (place.parameter != values_.size()) break;
      pieces_.push_back(make_piece(parameter, place,
                                   held ? blocks->pieces_of(parameter).at(of_parameter)
                                        : cut_piece(parameter, place, keep_masters),
                                   reducer.segments()[place.bucket].narrow(0, place.offset, place.count)));
    }
    values_.push_back(held ? at::Tensor() : parameter.value);
    const bool own_master = parameter.master.defined() && master_is_own(parameter);
    masters_.push_back(own_master && keep_masters ? parameter.master : at::Tensor());
    if (own_master && !keep_masters) parameter.master.reset();
  }
}

double ShardedParameters::gather_values() {
  const auto start = std::chrono::steady_clock::now();
  parallel::gather_shards(values_, plan_, group_);
  parallel::gather_shards(masters_, plan_, group_);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void ShardedParameters::refresh_values() {
  const at::NoGradGuard off;
  for (Parameter& piece : pieces_) {
    if (!piece.master.is_same(piece.value)) piece.value.copy_(piece.master.to(piece.dtype));
  }
  gather_values();
}

}  // namespace temper::trainer
