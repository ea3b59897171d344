#include "trainer/sharded_blocks.h"

#include <algorithm>
#include <set>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "parallel/trace.h"
#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

// What ranks tell each other before a pass, the largest counts: a backward adds the block that it ends at.
constexpr int64_t kNoMore = 0;
constexpr int64_t kForward = 1;
constexpr int64_t kForwardWithGradients = 2;
constexpr int64_t kBackwardTo = 3;

// As bytes: their types differ.
std::vector<at::Tensor> bytes_of(const QuantizedMatrix& matrix) {
  std::vector<at::Tensor> bytes;
  for (const at::Tensor& tensor : {matrix.codes, matrix.absmax, matrix.absmax_codes, matrix.nested_absmax}) {
    if (tensor.defined()) bytes.push_back(tensor.view({-1}).view(at::kByte));
  }
  return bytes;
}

}  // namespace

std::vector<const Parameter*> held_parameters(Model& model, bool adapters) {
  const auto storage_of = [](const Parameter& parameter) { return parameter.value.storage().unsafeGetStorageImpl(); };
  std::set<const void*> whole;
  for (const Parameter& parameter : model.parameters()) {
    if (adapters && parameter.trainable()) whole.insert(storage_of(parameter));
  }
  std::vector<const Parameter*> held;
  for (const Parameter& parameter : model.parameters()) {
    if (parameter.block >= 0 && !whole.contains(storage_of(parameter))) held.push_back(&parameter);
  }
  return held;
}

ShardedBlocks::ShardedBlocks(Model& model, parallel::Communicator& group, int64_t bucket_bytes,
                             const ShardedBlocksOptions& options)
    : group_(group.split(0, group.rank(), "weights")),
      bucket_elements_(bucket_bytes / static_cast<int64_t>(sizeof(float))),
      options_(options),
      blocks_(static_cast<size_t>(model.config().num_hidden_layers)) {
  const std::vector<const Parameter*> held = held_parameters(model, options.adapters);
  for (int64_t i = 0; i <= last(); ++i) {
    std::vector<const Parameter*> learning, frozen;
    for (const Parameter* parameter : held) {
      if (parameter->block == i) (parameter->trainable() ? learning : frozen).push_back(parameter);
    }
    add(blocks_[i], learning, true);
    add(blocks_[i], frozen, false);
    std::vector<at::Tensor> quantized;
    for (const LinearSlot& slot : model.linears()) {
      if (slot.block != i || slot.projection->quantized.empty()) continue;
      for (at::Tensor& bytes : bytes_of(slot.projection->quantized[slot.part])) quantized.push_back(std::move(bytes));
    }
    if (!quantized.empty()) {
      blocks_[i].tensors.push_back(std::make_unique<parallel::ShardedTensors>(quantized, bucket_bytes, *group_));
    }
    // Only now: parts of a projection lie in one storage, also where some are trained and others are not.
    blocks_[i].whole = true;
    release(i);
  }
  for (Parameter& parameter : model.parameters()) {
    if (holds(parameter)) parameter.master.reset();
  }
}

// Trained ones apart: their pieces are those of their gradients.
void ShardedBlocks::add(Block& block, const std::vector<const Parameter*>& parameters, bool trained) {
  if (parameters.empty()) return;
  std::vector<at::Tensor> values;
  for (const Parameter* parameter : parameters) {
    values.push_back(parameter->value);
    held_[parameter->name] = {};
  }
  const auto& tensors =
      *block.tensors.emplace_back(std::make_unique<parallel::ShardedTensors>(values, bucket_elements_, *group_));
  for (size_t i = 0; i < tensors.places().size(); ++i) {
    const Parameter& parameter = *parameters[tensors.places()[i].parameter];
    const at::Tensor& value = tensors.pieces()[i];
    const bool own_master = trained && !parameter.master.is_same(parameter.value);
    held_[parameter.name].push_back({.begin = tensors.places()[i].begin,
                                     .value = value,
                                     .master = own_master ? value.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true) : value});
  }
}

void ShardedBlocks::store(const Parameter& parameter, const at::Tensor& whole) {
  const at::NoGradGuard off;
  const at::Tensor flat = whole.reshape({-1});
  for (Piece& piece : held_.at(parameter.name)) {
    const at::Tensor own = flat.narrow(0, piece.begin, piece.value.numel());
    if (!piece.master.is_same(piece.value)) piece.master.copy_(own);
    piece.value.copy_(own.to(parameter.dtype));
  }
}

void ShardedBlocks::forget_masters() {
  for (auto& [name, pieces] : held_) {
    for (Piece& piece : pieces) piece.master = piece.value;
  }
}

// Tells the group which pass comes, and returns which one it is: this rank's, or where it has no more, another's.
int64_t ShardedBlocks::announce(int64_t pass) {
  if (in_backward_) release(lowest_);  // where backward ends nobody may be told so
  at::Tensor code = at::full({1}, pass, at::kLong);
  group_->all_reduce(code, parallel::ReduceOp::kMax)->wait();
  const int64_t agreed = code.item<int64_t>();
  TEMPER_CHECK(pass == kNoMore || pass == agreed, "ranks that share weights make the same passes");
  in_backward_ = agreed >= kBackwardTo;
  if (in_backward_) lowest_ = agreed - kBackwardTo;
  if (agreed == kForward || agreed == kForwardWithGradients) {
    with_gradients_ = agreed == kForwardWithGradients;
    if (with_gradients_) lowest_ = last();
    start(0);
  }
  return agreed;
}

void ShardedBlocks::start(int64_t block) {
  Block& b = blocks_[block];
  if (b.started || b.whole) return;
  const parallel::TraceLabel label("weights of block", static_cast<size_t>(block));
  for (const auto& tensors : b.tensors) tensors->start();
  b.started = true;
}

void ShardedBlocks::finish(int64_t block) {
  Block& b = blocks_[block];
  if (b.whole) return;
  start(block);
  for (const auto& tensors : b.tensors) tensors->finish();
  b.started = false;
  b.whole = true;
}

void ShardedBlocks::release(int64_t block) {
  Block& b = blocks_[block];
  if (!b.whole) return;
  for (const auto& tensors : b.tensors) tensors->release();
  b.whole = false;
}

void ShardedBlocks::enter_backward(int64_t block) {
  finish(block);
  if (block > lowest_) start(block - 1);
}

void ShardedBlocks::begin_forward() {
  if (holding_) return;
  announce(at::GradMode::is_enabled() ? kForwardWithGradients : kForward);
}

void ShardedBlocks::before_forward(int64_t block) {
  if (holding_) return;
  finish(block);
  if (block < last()) start(block + 1);
}

void ShardedBlocks::after_forward(int64_t block, bool output_has_gradient) {
  if (holding_) return;
  if (output_has_gradient) lowest_ = std::min(lowest_, block);
  // Backward begins with the last one.
  const bool kept = with_gradients_ && (block == last() || !options_.reshard);
  if (!kept) release(block);
}

void ShardedBlocks::before_backward(int64_t block) {
  if (holding_) return;
  if (block == last()) announce(kBackwardTo + lowest_);
  enter_backward(block);
}

void ShardedBlocks::after_backward(int64_t block) {
  if (holding_) return;
  release(block);
}

void ShardedBlocks::end_passes() {
  if (holding_) return;
  while (const int64_t pass = announce(kNoMore)) {
    if (pass == kForwardWithGradients) join_backward_();
    if (pass < kBackwardTo) {
      for (int64_t block = 0; block <= last(); ++block) {
        before_forward(block);
        after_forward(block, /*output_has_gradient=*/false);
      }
    } else {
      for (int64_t block = last(); block >= lowest_; --block) {
        enter_backward(block);
        after_backward(block);
      }
    }
  }
  for (int64_t block = 0; block <= last(); ++block) release(block);
}

void ShardedBlocks::hold() {
  TEMPER_CHECK(!holding_, "blocks are whole already");
  start(0);
  for (int64_t block = 0; block <= last(); ++block) {
    if (block < last()) start(block + 1);
    finish(block);
  }
  holding_ = true;
}

void ShardedBlocks::drop() {
  holding_ = false;
  for (int64_t block = 0; block <= last(); ++block) release(block);
}

}  // namespace temper::trainer
