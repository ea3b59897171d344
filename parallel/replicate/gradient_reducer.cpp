#include "parallel/replicate/gradient_reducer.h"

#include <algorithm>
#include <chrono>
#include <deque>
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
  State(std::vector<at::Tensor> all, Communicator& replicas, int64_t bucket_bytes,
        std::optional<int64_t> exact_micro_batches, GradientSharding sharding,
        const std::vector<int64_t>& units);
  ~State();

  bool sharded() const { return shard.size() > 1; }
  at::Tensor empty(int64_t size) const;
  at::Tensor no_gradient(int64_t size);
  void begin_round();
  void end_round();
  void gradient_is_complete(size_t parameter);
  void move_into_bucket(size_t parameter);
  void start_exchanges(bool only_full);
  void start_exchange(size_t bucket);
  void end_scatters(size_t under_way);
  void reduce(size_t bucket);
  WorkPtr sum_of(at::Tensor& tensor);
  at::Tensor find_last_matrix() const;
  void exchange_last_matrix();

  Communicator& replicas;
  const std::unique_ptr<Communicator> solo = make_solo_communicator();
  Communicator& shard;
  bool keeps_segments;
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> views;  // what `.grad` is; none where only segments are kept
  BucketPlan plan;
  std::vector<at::Tensor> buckets;  // where only segments are kept, undefined until they are filled
  at::Tensor zeros;                 // of a bucket that nothing fills
  std::vector<at::Tensor> segments;
  std::vector<std::shared_ptr<void>> registered;  // of those that stay where they are
  std::optional<TreeSum> tree;
  at::Tensor last_matrix;      // undefined, or all that the last bucket holds, a view of it
  at::Tensor rows_with_values; // of it, on any rank

  // One accumulator node and hook a parameter; the parameter itself holds its node only weakly.
  std::vector<std::pair<std::shared_ptr<torch::autograd::Node>, uintptr_t>> hooks;

  // A round is what is exchanged at once: a step, or a micro-batch where only segments are kept.
  int64_t rounds = 1, ended = 0;
  bool begun = false;            // a micro-batch of this step
  bool exchanging = false;       // in the last backward of a round
  std::vector<bool> complete;    // of a parameter
  std::vector<int64_t> missing;  // parameters of a bucket that are not complete
  size_t started = 0;            // buckets of this round: ranks start them in one order
  struct Scatter {
    size_t bucket;
    at::Tensor full, sums;
    bool last = false;  // of this bucket in the step
    WorkPtr work;
  };
  std::deque<Scatter> scatters;    // along `shard`, under way
  std::vector<WorkPtr> reductions;  // along `replicas`, of the first buckets
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

GradientReducer::State::State(std::vector<at::Tensor> all, Communicator& replica_group,
                              int64_t bucket_bytes, std::optional<int64_t> exact_micro_batches,
                              GradientSharding sharding, const std::vector<int64_t>& units)
    : replicas(replica_group),
      shard(sharding.group ? *sharding.group : *solo),
      keeps_segments(sharding.keeps_segments && shard.size() > 1 && !exact_micro_batches) {
  TEMPER_CHECK(units.empty() || units.size() == all.size(), "a unit for each parameter");
  std::vector<int64_t> sizes, own_units;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!all[i].requires_grad()) continue;
    TEMPER_CHECK(all[i].is_leaf(), "gradients are collected at leaves");
    sizes.push_back(all[i].numel());
    if (!units.empty()) own_units.push_back(units[i]);
    parameters.push_back(std::move(all[i]));
  }
  plan = plan_buckets(sizes, bucket_bytes / static_cast<int64_t>(sizeof(float)), shard.size(),
                      own_units);
  for (const int64_t size : plan.bucket_sizes) {
    buckets.push_back(keeps_segments ? at::Tensor() : empty(size).zero_());
    segments.push_back(sharded() ? empty(size / shard.size()).zero_() : buckets.back());
  }
  for (size_t i = 0; i < parameters.size() && !keeps_segments; ++i) {
    const auto [bucket, offset] = plan.slots[i];
    views.push_back(buckets[bucket].narrow(0, offset, sizes[i]).view(parameters[i].sizes()));
    parameters[i].mutable_grad() = views[i];
  }
  if (exact_micro_batches) tree.emplace(buckets, *exact_micro_batches);
  complete.resize(parameters.size());
  missing.resize(buckets.size());
  if (!sharded()) last_matrix = find_last_matrix();
  if (replicas.size() == 1 && shard.size() == 1) return;
  // Both ends of an exchange, or none: what only segments are made of comes and goes.
  if (sharded() && !keeps_segments) {
    for (const auto& ends : {buckets, segments}) registered.push_back(shard.register_buffers(ends));
  }
  registered.push_back(replicas.register_buffers(segments));
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

at::Tensor GradientReducer::State::empty(int64_t size) const {
  return at::empty({size}, parameters.front().options().dtype(at::kFloat).requires_grad(false));
}

// One for all buckets: it is only read.
at::Tensor GradientReducer::State::no_gradient(int64_t size) {
  if (!zeros.defined()) {
    zeros = empty(*std::max_element(plan.bucket_sizes.begin(), plan.bucket_sizes.end())).zero_();
  }
  return zeros.narrow(0, 0, size);
}

void GradientReducer::State::begin_round() {
  started = 0;
  complete.assign(parameters.size(), false);
  missing.assign(buckets.size(), 0);
  for (const BucketPlan::Slot& slot : plan.slots) ++missing[slot.bucket];
}

void GradientReducer::State::end_round() {
  start_exchanges(/*only_full=*/false);
  ++ended;
}

void GradientReducer::State::gradient_is_complete(size_t parameter) {
  if (!exchanging) return;
  TEMPER_CHECK(!complete[parameter], "two backward passes after exchange_after_backward(true)");
  complete[parameter] = true;
  --missing[plan.slots[parameter].bucket];
  if (keeps_segments) move_into_bucket(parameter);
  start_exchanges(/*only_full=*/true);
}

void GradientReducer::State::move_into_bucket(size_t parameter) {
  const auto [number, offset] = plan.slots[parameter];
  at::Tensor& bucket = buckets[number];
  if (!bucket.defined()) bucket = empty(plan.bucket_sizes[number]).zero_();
  at::Tensor& gradient = parameters[parameter].mutable_grad();
  if (!gradient.defined()) return;
  bucket.narrow(0, offset, gradient.numel()).copy_(gradient.reshape({-1}));
  gradient.reset();
}

void GradientReducer::State::start_exchanges(bool only_full) {
  // What is given up again is soon waited for: memory is what it is about. But not for buckets that
  // nothing has filled, which a rank that makes passes with us may start after our next one.
  constexpr size_t kBucketsUnderWay = 2;
  while (started < buckets.size()) {
    if (only_full && missing[started] > 0) return;
    const TraceLabel label("bucket", started);
    start_exchange(started++);
    if (only_full && keeps_segments) end_scatters(kBucketsUnderWay);
  }
}

void GradientReducer::State::start_exchange(size_t bucket) {
  if (tree) tree->complete(bucket);
  if (!sharded()) return reduce(bucket);
  at::Tensor& full = buckets[bucket];
  if (!full.defined()) full = no_gradient(plan.bucket_sizes[bucket]);
  Scatter& scatter = scatters.emplace_back(
      Scatter{.bucket = bucket,
              .full = full,
              .sums = ended == 0 ? segments[bucket] : at::empty_like(segments[bucket]),
              .last = ended + 1 == rounds,
              .work = {}});
  scatter.work = tree ? tree_reduce_scatter(scatter.sums, full, shard)
                      : shard.reduce_scatter(scatter.sums, full);
  if (keeps_segments) full.reset();
}

// Those that are done, and those above `under_way`; in order.
void GradientReducer::State::end_scatters(size_t under_way) {
  while (!scatters.empty() && (scatters.size() > under_way || scatters.front().work->done())) {
    const Scatter& first = scatters.front();
    first.work->wait();
    if (!first.sums.is_same(segments[first.bucket])) segments[first.bucket].add_(first.sums);
    if (first.last) {
      const TraceLabel label("bucket", first.bucket);
      reduce(first.bucket);
    }
    scatters.pop_front();
  }
}

void GradientReducer::State::reduce(size_t bucket) {
  if (bucket + 1 == buckets.size() && last_matrix.defined()) {
    rows_with_values = at::any(last_matrix, 1).to(at::kByte);
    reductions.push_back(replicas.all_reduce(rows_with_values, ReduceOp::kMax));
  } else {
    reductions.push_back(sum_of(segments[bucket]));
  }
}

WorkPtr GradientReducer::State::sum_of(at::Tensor& tensor) {
  return tree ? tree_all_reduce(tensor, replicas) : replicas.all_reduce(tensor);
}

// That of the first parameter, where it is alone and large enough for a second exchange to be worth it.
at::Tensor GradientReducer::State::find_last_matrix() const {
  if (views.empty() || (views.size() > 1 && plan.slots[1].bucket == plan.slots[0].bucket)) return {};
  const at::Tensor& view = views.front();
  return view.dim() == 2 && view.numel() >= kLargeMatrix ? view : at::Tensor();
}

// Nothing is left to hide what backward finishes last, and that is an embedding: rows of tokens that
// no rank has seen are zero everywhere and need not travel.
void GradientReducer::State::exchange_last_matrix() {
  const at::Tensor rows = rows_with_values.nonzero().squeeze(1);
  if (2 * rows.numel() > last_matrix.size(0)) {
    sum_of(segments.back())->wait();
    return;
  }
  at::Tensor packed = last_matrix.index_select(0, rows);
  sum_of(packed)->wait();
  last_matrix.index_copy_(0, rows, packed);
}

GradientReducer::GradientReducer(std::vector<at::Tensor> parameters, Communicator& replicas,
                                 int64_t bucket_bytes, std::optional<int64_t> exact_micro_batches,
                                 GradientSharding sharding, const std::vector<int64_t>& units)
    : state_(std::make_unique<State>(std::move(parameters), replicas, bucket_bytes,
                                     exact_micro_batches, sharding, units)) {}

GradientReducer::~GradientReducer() = default;

void GradientReducer::begin_step(int64_t micro_batches) {
  State& s = *state_;
  if (s.tree) s.tree->begin();
  for (at::Tensor& bucket : s.buckets) {
    if (bucket.defined()) bucket.zero_();
  }
  s.reductions.clear();
  s.ended = 0;
  s.rounds = 1;
  s.begun = false;
  s.exchanging = false;
  s.begin_round();
  if (!s.keeps_segments) return;
  // Every rank of the group joins as many exchanges as the one with most micro-batches needs.
  at::Tensor most = at::full({1}, std::max<int64_t>(1, micro_batches), at::kLong);
  s.shard.all_reduce(most, ReduceOp::kMax)->wait();
  s.rounds = most.item<int64_t>();
}

void GradientReducer::exchange_after_backward(bool last) {
  State& s = *state_;
  if (s.tree) s.tree->next();
  if (s.keeps_segments && s.begun) s.end_round();
  s.begun = true;
  s.exchanging = (last || s.keeps_segments) && !s.hooks.empty();
  s.begin_round();
}

bool GradientReducer::exchanging() const { return state_->exchanging; }

void GradientReducer::join_backward() {
  State& s = *state_;
  if (!s.keeps_segments) return;
  if (s.begun) s.end_round();
  s.begun = true;
  s.exchanging = false;
  s.end_scatters(0);
  s.begin_round();
  s.start_exchanges(/*only_full=*/false);
}

void GradientReducer::finish() {
  State& s = *state_;
  for (size_t i = 0; i < s.views.size(); ++i) {
    TEMPER_CHECK(s.parameters[i].grad().is_same(s.views[i]),
                 "somebody has replaced a .grad that is a view of a bucket");
  }
  const auto start = std::chrono::steady_clock::now();
  s.exchanging = false;
  s.end_round();
  while (s.ended < s.rounds) {
    s.end_scatters(0);
    s.begin_round();
    s.end_round();
  }
  s.end_scatters(0);
  s.zeros.reset();
  for (size_t i = 0; i < s.reductions.size(); ++i) {
    const TraceLabel label("bucket", i);  // a sum in the order of a tree has a second exchange here
    s.reductions[i]->wait();
  }
  if (s.last_matrix.defined() && s.replicas.size() > 1) {
    const TraceLabel label("bucket", s.buckets.size() - 1);
    s.exchange_last_matrix();
  }
  s.exposed_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

const std::vector<at::Tensor>& GradientReducer::segments() const { return state_->segments; }

const BucketPlan& GradientReducer::plan() const { return state_->plan; }

double GradientReducer::exposed_seconds() const { return state_->exposed_seconds; }

}  // namespace temper::parallel
