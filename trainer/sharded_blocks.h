#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/shard/sharded_tensors.h"
#include "trainer/models/block_hooks.h"
#include "trainer/models/model.h"

/// ZeRO 3 (Rajbhandari et al. 2020, arXiv:1910.02054; Zhao et al. 2023, arXiv:2304.11277): the weights
/// of a model's blocks, quantised ones too, are in pieces on the ranks of a group, and whole on a rank
/// only while it goes through the block, forward or back. The next block's gather runs meanwhile, so at
/// most two are there. What is outside of blocks (embedding, last norm, head, adapters) stays whole.
///
/// Ranks must gather the same blocks in the same order, and a rank may have fewer passes to make than
/// others. So each pass is announced to the group, and end_passes() takes part in the gathers of the
/// others until nobody has any more:
///
///     ShardedBlocks blocks(model, group, bucket_bytes, {});  // before or after weights are loaded
///     model.block_hooks() = &blocks;
///     for (...) objective.loss(model, batch).sum.backward();
///     blocks.end_passes();
namespace temper::trainer {

struct ShardedBlocksOptions {
  bool reshard = true;    // give weights up after forward; else only after backward
  bool adapters = false;  // blocks are a frozen base; what is trained there all the same (biases) stays whole
};

/// Those that ShardedBlocks would hold, in order.
std::vector<const Parameter*> held_parameters(Model& model, bool adapters);

class ShardedBlocks : public BlockHooks {
 public:
  /// Gives up the blocks' values, keeping this rank's pieces of them. Parameters that it holds have no
  /// master any more (`master` is undefined). Collective.
  ShardedBlocks(Model& model, parallel::Communicator& group, int64_t bucket_bytes,
                const ShardedBlocksOptions& options);

  bool holds(const Parameter& parameter) const override { return held_.contains(parameter.name); }
  void store(const Parameter& parameter, const at::Tensor& whole) override;
  /// Where this rank's pieces of a parameter begin, with their values and, of trained ones, masters: flat.
  struct Piece {
    int64_t begin = 0;
    at::Tensor value, master;
  };
  const std::vector<Piece>& pieces_of(const Parameter& parameter) const { return held_.at(parameter.name); }
  /// Masters are with those who have taken pieces alone; store() is over.
  void forget_masters();

  void begin_forward() override;
  void before_forward(int64_t block) override;
  void after_forward(int64_t block, bool output_has_gradient) override;
  void before_backward(int64_t block) override;
  void after_backward(int64_t block) override;
  void end_passes() override;
  /// Called in end_passes() before each pass of others that will come back: their backward may wait for
  /// this rank's part of gradients (GradientReducer::join_backward).
  void join_backward_with(std::function<void()> join) { join_backward_ = std::move(join); }

  /// All blocks are whole from hold() to drop(), and passes gather nothing. Collective.
  void hold();
  void drop();

 private:
  struct Block {
    std::vector<std::unique_ptr<parallel::ShardedTensors>> tensors;
    bool started = false, whole = false;
  };
  void add(Block& block, const std::vector<const Parameter*>& parameters, bool trained);
  void start(int64_t block);
  void finish(int64_t block);
  void release(int64_t block);
  void enter_backward(int64_t block);
  int64_t announce(int64_t pass);
  int64_t last() const { return static_cast<int64_t>(blocks_.size()) - 1; }

  std::unique_ptr<parallel::Communicator> group_;  // gradients have another, in an order of their own
  int64_t bucket_elements_;
  ShardedBlocksOptions options_;
  std::vector<Block> blocks_;
  std::map<std::string, std::vector<Piece>> held_;
  std::function<void()> join_backward_ = [] {};
  bool holding_ = false;
  bool with_gradients_ = false;  // the last forward
  bool in_backward_ = false;     // the last pass was one
  int64_t lowest_ = 0;           // the block that it ends at
};

/// Blocks are whole while it lives; nothing where `blocks` is null. Collective.
class WholeBlocks {
 public:
  explicit WholeBlocks(ShardedBlocks* blocks) : blocks_(blocks) {
    if (blocks_) blocks_->hold();
  }
  ~WholeBlocks() {
    if (blocks_) blocks_->drop();
  }
  WholeBlocks(const WholeBlocks&) = delete;
  WholeBlocks& operator=(const WholeBlocks&) = delete;

 private:
  ShardedBlocks* blocks_;
};

}  // namespace temper::trainer
