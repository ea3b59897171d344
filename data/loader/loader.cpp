#include "data/loader/loader.h"

#include <algorithm>
#include <future>
#include <span>
#include <utility>

#include "data/loader/sequences.h"
#include "data/loader/step_order.h"
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
  const std::vector<int64_t> order =
      step_order(sequences, step / steps_per_epoch, step % steps_per_epoch, options);
  StepBatches result;
  for (const RankShare& share : shares_of(options, std::ssize(order))) {
    result.micro_batches.push_back(
        sequences.batch(std::span(order).subspan(share.begin, share.count)));
    result.micro_batches.back().number = share.number;
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
