#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "data/loader/loader.h"
#include "trainer/objectives/objective.h"

/// A micro-batch's forward and backward, recorded once and then started with one call (a CUDA graph): for models so small that
/// the host starts kernels more slowly than the device ends them. (train.cuda_graphs)
///
/// What is recorded is the same work each time, so micro-batches are brought to one shape: rows of `length` tokens, padded by a
/// document without labels, and as many documents as there is room for, the last of them empty. They lie in the same tensors of the
/// device each time. A pass has the same bits whether it is replayed or not.
///
///     RecordedPasses passes(device, max_length);
///     passes.record(batches, pass);                  // before gradients are zeroed
///     for (...) terms = passes.run(batch, pass);     // or anew(), where gradients' hooks are the host's
namespace temper::trainer {

class RecordedPasses {
 public:
  /// Forward and backward of a batch whose tensors are all on the device: must not wait for it, nor send it anything.
  using Pass = std::function<LossTerms(const data::Batch&)>;

  RecordedPasses(at::Device device, int64_t length);
  ~RecordedPasses();

  /// Records what `batches` need and is not there yet; what `pass` adds to gradients meanwhile is anything.
  void record(const data::StepBatches& batches, const Pass& pass);
  /// What pass(batch) gives and does, replayed; anew where nothing is recorded (TEMPER_CUDA_GRAPHS=0). Counts and all metrics'
  /// denominators are supervised tokens.
  LossTerms run(const data::Batch& batch, const Pass& pass);
  /// `pass` of `batch` in the shape that is recorded.
  LossTerms anew(const data::Batch& batch, const Pass& pass);

 private:
  struct Recorded;
  Recorded* find(const data::Batch& batch);
  void fill(Recorded& recorded, const data::Batch& batch) const;

  at::Device device_;
  int64_t length_;
  std::vector<std::unique_ptr<Recorded>> recorded_;  // one for each number of rows
};

}  // namespace temper::trainer
