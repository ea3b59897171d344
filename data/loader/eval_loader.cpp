#include "data/loader/eval_loader.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "data/loader/sequences.h"

namespace temper::data {

EvalLoader::EvalLoader(std::shared_ptr<const TokenDataset> dataset, const LoaderOptions& options)
    : options_(options),
      sequences_(std::make_unique<Sequences>(std::move(dataset), options)),
      next_(options.rank) {}

EvalLoader::~EvalLoader() = default;

int64_t EvalLoader::rounds() const {
  const int64_t together = options_.micro * options_.ranks;
  return (sequences_->size() + together - 1) / together;
}

bool EvalLoader::next(Batch& batch) {
  const int64_t first = next_ * options_.micro;
  if (first >= sequences_->size()) return false;
  std::vector<int64_t> numbers(
      static_cast<size_t>(std::min(options_.micro, sequences_->size() - first)));
  std::iota(numbers.begin(), numbers.end(), first);
  batch = sequences_->batch(numbers);
  next_ += options_.ranks;
  return true;
}

}  // namespace temper::data
