#include "parallel/replicate/gradient_reducer.h"

#include <chrono>
#include <utility>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "parallel/replicate/bucket_plan.h"
#include "parallel/replicate/tree_sum.h"
#include "parallel/trace.h"
#include "recipes/diagnostic.h"

namespace temper::parallel {

struct GradientReducer::State {
  State(std::vector<at::Tensor> all, Communicator& group, int64_t bucket_bytes,
        std::optional<int64_t> exact_micro_batches);
  ~State();

  void gradient_is_complete(size_t parameter);
  void start_exchanges(bool only_full);

  Communicator& communicator;
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> views;
  BucketPlan plan;
  std::vector<at::Tensor> buckets;
  std::optional<TreeSum> tree;

  // One accumulator node and hook a parameter; the parameter itself holds its node only weakly.
  std::vector<std::pair<std::shared_ptr<torch::autograd::Node>, uintptr_t>> hooks;

  bool exchanging = false;         // in the last backward of the window
  std::vector<bool> complete;      // of a parameter
  std::vector<int64_t> missing;    // parameters of a bucket that are not complete
  std::vector<WorkPtr> exchanges;  // of the first buckets: ranks start them in one order
  double exposed_seconds = 0;
};

namespace {

/// Calls back when autograd is done with a parameter in one backward. A post hook of the
/// accumulator fires whether the gradient came through it or an op has put it into `.grad` itself
/// and returned none; a post-accumulate hook would not.
class CompletionHook : public torch::autograd::FunctionPostHook {
 public:
  explicit CompletionHook(std::function<void()> complete) : complete_(std::move(complete)) {}
  torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                            const torch::autograd::variable_list&) override {
    complete_();
    return outputs;
  }

 private:
  std::function<void()> complete_;
};

}  // namespace

GradientReducer::State::State(std::vector<at::Tensor> all, Communicator& group,
                              int64_t bucket_bytes, std::optional<int64_t> exact_micro_batches)
    : communicator(group) {
  std::vector<int64_t> sizes;
  for (at::Tensor& parameter : all) {
    if (!parameter.requires_grad()) continue;
    TEMPER_CHECK(parameter.is_leaf(), "gradients are collected at leaves");
    sizes.push_back(parameter.numel());
    parameters.push_back(std::move(parameter));
  }
  plan = plan_buckets(sizes, bucket_bytes / static_cast<int64_t>(sizeof(float)));
  for (const int64_t size : plan.bucket_sizes) {
    buckets.push_back(
        at::zeros({size}, parameters.front().options().dtype(at::kFloat).requires_grad(false)));
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto [bucket, offset] = plan.slots[i];
    views.push_back(buckets[bucket].narrow(0, offset, sizes[i]).view(parameters[i].sizes()));
    parameters[i].mutable_grad() = views[i];
  }
  if (exact_micro_batches) tree.emplace(buckets, *exact_micro_batches);
  complete.resize(parameters.size());
  missing.resize(buckets.size());
  if (communicator.size() == 1) return;
  for (size_t i = 0; i < parameters.size(); ++i) {
    auto accumulator = torch::autograd::impl::grad_accumulator(parameters[i]);
    const uintptr_t key = accumulator->add_post_hook(
        std::make_unique<CompletionHook>([this, i] { gradient_is_complete(i); }));
    hooks.emplace_back(std::move(accumulator), key);
  }
}

GradientReducer::State::~State() {
  for (const auto& [accumulator, key] : hooks) accumulator->del_post_hook(key);
}

void GradientReducer::State::gradient_is_complete(size_t parameter) {
  if (!exchanging) return;
  TEMPER_CHECK(!complete[parameter], "two backward passes after exchange_after_backward(true)");
  complete[parameter] = true;
  --missing[plan.slots[parameter].bucket];
  start_exchanges(/*only_full=*/true);
}

void GradientReducer::State::start_exchanges(bool only_full) {
  while (exchanges.size() < buckets.size()) {
    const size_t next = exchanges.size();
    if (only_full && missing[next] > 0) return;
    const TraceLabel label("bucket", next);
    if (tree) tree->complete(next);
    exchanges.push_back(tree ? tree_all_reduce(buckets[next], communicator)
                             : communicator.all_reduce(buckets[next]));
  }
}

GradientReducer::GradientReducer(std::vector<at::Tensor> parameters, Communicator& communicator,
                                 int64_t bucket_bytes, std::optional<int64_t> exact_micro_batches)
    : state_(std::make_unique<State>(std::move(parameters), communicator, bucket_bytes,
                                     exact_micro_batches)) {}

GradientReducer::~GradientReducer() = default;

void GradientReducer::begin_step() {
  for (at::Tensor& bucket : state_->buckets) bucket.zero_();
  if (state_->tree) state_->tree->begin();
  state_->exchanges.clear();
  state_->exchanging = false;
}

void GradientReducer::exchange_after_backward(bool last) {
  if (state_->tree) state_->tree->next();
  state_->exchanging = last && state_->communicator.size() > 1;
  state_->complete.assign(state_->parameters.size(), false);
  state_->missing.assign(state_->buckets.size(), 0);
  for (const BucketPlan::Slot& slot : state_->plan.slots) ++state_->missing[slot.bucket];
}

void GradientReducer::finish() {
  for (size_t i = 0; i < state_->parameters.size(); ++i) {
    TEMPER_CHECK(state_->parameters[i].grad().is_same(state_->views[i]),
                 "somebody has replaced a .grad that is a view of a bucket");
  }
  state_->exchanging = false;
  const auto start = std::chrono::steady_clock::now();
  state_->start_exchanges(/*only_full=*/false);
  for (size_t i = 0; i < state_->exchanges.size(); ++i) {
    const TraceLabel label("bucket", i);  // a sum in the order of a tree has a second exchange here
    state_->exchanges[i]->wait();
  }
  state_->exposed_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

const std::vector<at::Tensor>& GradientReducer::buckets() const { return state_->buckets; }

double GradientReducer::exposed_seconds() const { return state_->exposed_seconds; }

}  // namespace temper::parallel
