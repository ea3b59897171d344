#include "trainer/recorded_passes.h"

#include <bit>
#include <variant>

#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>

#include "parallel/trace.h"
#include "recipes/diagnostic.h"
#include "trainer/ops/device_graph.h"

namespace temper::trainer {

namespace {

// Rows are padded one by one: their documents move, and each gets one more.
at::Tensor ends_in_rows_of(int64_t length, const data::Batch& batch) {
  const int64_t rows = batch.token_ids.size(0), own = batch.token_ids.size(1);
  const int64_t documents = batch.document_ends.numel() - 1;
  at::Tensor ends = at::zeros({documents + rows + 1}, at::kInt);
  const int32_t* from = batch.document_ends.const_data_ptr<int32_t>();
  int32_t* to = ends.mutable_data_ptr<int32_t>() + 1;
  for (int64_t d = 1; d <= documents; ++d) {
    const int64_t row = (from[d] - 1) / own;
    *to++ = static_cast<int32_t>(from[d] + row * (length - own));
    if (from[d] == (row + 1) * own) *to++ = static_cast<int32_t>((row + 1) * length);
  }
  return ends;
}

// In front of those that are empty.
int64_t documents_of(const data::Batch& batch) { return batch.document_ends.numel() - 1 + batch.token_ids.size(0); }

}  // namespace

struct RecordedPasses::Recorded {
  data::Batch input;
  LossTerms terms;
  std::unique_ptr<DeviceGraph> graph;
};

RecordedPasses::RecordedPasses(at::Device device, int64_t length) : device_(device), length_(length) {}
RecordedPasses::~RecordedPasses() = default;

RecordedPasses::Recorded* RecordedPasses::find(const data::Batch& batch) {
  for (const auto& recorded : recorded_) {
    if (recorded->input.token_ids.size(0) == batch.token_ids.size(0)) return recorded.get();
  }
  return nullptr;
}

void RecordedPasses::record(const data::StepBatches& batches, const Pass& pass) {
  for (const data::Batch& batch : batches.micro_batches) {
    const int64_t documents = documents_of(batch);
    Recorded* there = find(batch);
    if (there != nullptr && there->input.document_ends.numel() > documents) continue;
    if (there == nullptr) there = recorded_.emplace_back(std::make_unique<Recorded>()).get();
    Recorded& made = *there;
    made = {};  // the memory of one with less room goes first
    const auto room = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(documents)));
    const std::vector<int64_t> shape = {batch.token_ids.size(0), length_};
    const auto longs = at::TensorOptions(device_).dtype(at::kLong);
    made.input.token_ids = at::empty(shape, longs);
    made.input.labels = at::empty(shape, longs);
    made.input.positions = at::empty(shape, longs);
    made.input.document_ends = at::empty({room + 1}, longs.dtype(at::kInt));
    fill(made, batch);
    if (!can_record(device_)) continue;
    pass(made.input);
    c10::getDeviceAllocator(device_.type())->emptyCache();  // or its activations would stand beside those that are recorded
    made.graph = trainer::record(device_, "train.cuda_graphs: a micro-batch", [&] { made.terms = pass(made.input); });
  }
}

void RecordedPasses::fill(Recorded& recorded, const data::Batch& batch) const {
  TEMPER_CHECK(batch.token_ids.size(1) <= length_ && !batch.prefixes.defined(), "rows of packed documents");
  const std::vector<int64_t> behind = {0, length_ - batch.token_ids.size(1)};
  data::Batch& input = recorded.input;
  send_into(input.token_ids, at::constant_pad_nd(batch.token_ids, behind, 0));
  send_into(input.labels, at::constant_pad_nd(batch.labels, behind, -100));
  send_into(input.positions, at::constant_pad_nd(batch.positions, behind, 0));
  const at::Tensor ends = ends_in_rows_of(length_, batch);
  const std::vector<int64_t> empty = {0, input.document_ends.numel() - ends.numel()};
  send_into(input.document_ends, at::constant_pad_nd(ends, empty, batch.token_ids.size(0) * length_));
  input.rows = batch.rows;
  input.number = batch.number;
  input.input_tokens = batch.input_tokens;
  input.supervised = batch.supervised;
}

LossTerms RecordedPasses::anew(const data::Batch& batch, const Pass& pass) {
  Recorded& recorded = *find(batch);
  fill(recorded, batch);
  return pass(recorded.input);
}

LossTerms RecordedPasses::run(const data::Batch& batch, const Pass& pass) {
  Recorded& recorded = *find(batch);
  if (!recorded.graph) return anew(batch, pass);
  fill(recorded, batch);
  const parallel::TraceSpan span("replay");
  recorded.graph->replay();
  // The next replay writes into the same tensors.
  LossTerms terms = recorded.terms;
  terms.sum = terms.sum.clone();
  terms.count = static_cast<double>(batch.supervised);
  for (LateMetric& metric : terms.metrics) {
    metric.numerator = std::get<at::Tensor>(metric.numerator).clone();
    metric.denominator = terms.count;
  }
  return terms;
}

}  // namespace temper::trainer
