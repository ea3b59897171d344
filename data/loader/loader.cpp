#include "data/loader/loader.h"

#include <algorithm>
#include <future>
#include <utility>

#include "data/loader/permutation.h"
#include "data/loader/sequences.h"
#include "parallel/seed.h"
#include "recipes/diagnostic.h"

namespace temper::data {

struct DataLoader::State {
  LoaderOptions options;
  Sequences sequences;
  int64_t steps_per_epoch = 0;
  int64_t prefetched_step = -1;
  std::future<StepBatches> prefetched{};  // its destructor waits for the thread

  StepBatches make(int64_t step) const;
};

// Pure in (options, sequences, step), so the prefetching thread needs no lock.
StepBatches DataLoader::State::make(int64_t step) const {
  const int64_t epoch = step / steps_per_epoch;
  const int64_t first = step % steps_per_epoch * options.global;
  const int64_t taken = std::min(options.global, sequences.size() - first);
  const int64_t accumulation = options.global / (options.micro * options.ranks);
  const Permutation order(sequences.size(), parallel::seed_of(options.seed, "shuffle", 0, epoch));

  StepBatches result;
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < accumulation; ++i) {
    const int64_t begin = (options.rank * accumulation + i) * options.micro;
    numbers.clear();
    for (int64_t j = begin; j < std::min(begin + options.micro, taken); ++j) {
      numbers.push_back(options.shuffle ? order(first + j) : first + j);
    }
    if (numbers.empty()) break;
    result.micro_batches.push_back(sequences.batch(numbers));
    result.micro_batches.back().number = options.rank * accumulation + i;
  }
  return result;
}

DataLoader::DataLoader(std::shared_ptr<const TokenDataset> dataset, const LoaderOptions& options)
    : state_(new State{.options = options, .sequences = Sequences(std::move(dataset), options)}) {
  TEMPER_CHECK(options.global % (options.micro * options.ranks) == 0,
               "batch.global is a multiple of batch.micro x ranks");
  const int64_t rounding = options.drop_last ? 0 : options.global - 1;
  state_->steps_per_epoch = (sequences() + rounding) / options.global;
}

DataLoader::~DataLoader() = default;

int64_t DataLoader::sequences() const { return state_->sequences.size(); }

int64_t DataLoader::steps_per_epoch() const { return state_->steps_per_epoch; }

StepBatches DataLoader::step(int64_t step) {
  TEMPER_CHECK(step >= 0 && state_->steps_per_epoch > 0, "an epoch without steps");
  const bool ready = state_->prefetched.valid() && state_->prefetched_step == step;
  StepBatches batches = ready ? state_->prefetched.get() : state_->make(step);
  state_->prefetched_step = step + 1;
  state_->prefetched = std::async(std::launch::async, &State::make, state_.get(), step + 1);
  return batches;
}

}  // namespace temper::data
