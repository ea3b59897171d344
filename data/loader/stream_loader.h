#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/loader/loader.h"
#include "data/shards/prepare.h"

namespace temper::data {

/// Rows of a stream (row_stream.h) to batches, without a pass over the files first: a thread reads,
/// checks and tokenizes windows of rows, one ahead of what is used. The sequences of a window are
/// packed together and come in the order of a keyed permutation (shuffle) or in order; a window
/// after the other. The first windows are small, so that the first batch comes at once, and each is
/// at most twice the one before. Every rank reads all rows, so that none waits for another.
///
/// state() is where the window of the next sequence begins: going on from there reads that window
/// again and nothing before it.
class StreamLoader : public Loader {
 public:
  /// Reads the first window. `window_rows`: of a full one. Throws UserError as prepare() does, for
  /// the rows of the first window; step() does for those that come later.
  StreamLoader(std::vector<recipes::DataSource> sources, const EncoderFactory& factory,
               const PrepareOptions& prepare, const LoaderOptions& options, int64_t window_rows);
  ~StreamLoader() override;

  StepBatches step(int64_t step) override;
  Json state() override;
  void restore(const Json& state) override;

  /// Of the first window.
  const PrepareReport& first_rows() const;
  int64_t first_sequences() const;
  double mean_length() const;  // tokens of its mean row

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::data
