#pragma once

#include <cstdint>
#include <memory>

#include "data/loader/loader.h"

namespace temper::data {

class Sequences;

/// One pass over an evaluation set: micro-batches of `micro` sequences in file order (packed as in
/// training), micro-batch m on rank m mod ranks. A rank may get none.
///
///     EvalLoader loader(dataset, options);
///     Batch batch;
///     while (loader.next(batch)) { ... }
class EvalLoader {
 public:
  EvalLoader(std::shared_ptr<const TokenDataset> dataset, const LoaderOptions& options);
  ~EvalLoader();
  bool next(Batch& batch);
  /// Calls of next() after which no rank has more: the same on all of them.
  int64_t rounds() const;

 private:
  LoaderOptions options_;
  std::unique_ptr<const Sequences> sequences_;
  int64_t next_ = 0;  // micro-batch
};

}  // namespace temper::data
