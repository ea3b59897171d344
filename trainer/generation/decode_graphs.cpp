#include "trainer/generation/decode_graphs.h"

#include <algorithm>
#include <bit>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "trainer/models/model.h"
#include "trainer/ops/head_products.h"

namespace temper::trainer {

namespace {

constexpr int64_t kStepsBefore = 4;  // recording takes about as long as one

// Rows a step has for `sequences`: few sizes, each with little padding.
int64_t rows_for(int64_t sequences, int64_t slots) {
  const int64_t rows = sequences < 8
                           ? static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(sequences)))
                           : (sequences + 7) / 8 * 8;
  return std::min(rows, slots);
}

}  // namespace

bool DecodeGraphs::apply_to(Model& model) {
  if (!can_record(model.head().weight.device()) || model.block_hooks() != nullptr) return false;
  const std::vector<LinearSlot> linears = model.linears();
  return std::all_of(linears.begin(), linears.end(),
                     [](const LinearSlot& slot) { return slot.projection->adapted.empty(); });
}

DecodeGraphs::DecodeGraphs(Model& model, KvCache& cache, int64_t slots, int64_t longest)
    : model_(model),
      cache_(cache),
      device_(model.head().weight.device()),
      slots_(slots),
      longest_(longest),
      logits_(at::empty({slots, model.head().weight.size(0)},
                        at::TensorOptions(device_).dtype(at::kFloat))) {}

void DecodeGraphs::compute(const DecodeInputs& inputs, const at::Tensor& logits) {
  HeadProducts(model_.head(), model_.decode(inputs, cache_.shape()), 0).logits_into(logits);
}

at::Tensor DecodeGraphs::step(std::vector<int64_t> token_ids,
                              const std::vector<int64_t>& sequences) {
  const int64_t rows = rows_for(std::ssize(sequences), slots_);
  TEMPER_CHECK(std::ssize(sequences) <= rows, "no more sequences than slots");
  token_ids.resize(static_cast<size_t>(rows));
  std::vector<CachedRun> runs(static_cast<size_t>(rows), {KvCache::kNobody, 1});
  for (size_t i = 0; i < sequences.size(); ++i) runs[i].sequence = sequences[i];
  const DecodeInputs inputs = model_.decode_inputs(at::tensor(token_ids, at::kLong), runs, cache_);
  const at::Tensor logits = logits_.narrow(0, 0, rows);
  Recorded& recorded = of_rows_[rows];
  if (recorded.steps < kStepsBefore) {
    ++recorded.steps;
    compute(sent_to(device_, inputs), logits);
    return logits;
  }
  if (!recorded.graph) {
    const int64_t pages = rows * ((longest_ + kPageTokens - 1) / kPageTokens);
    recorded.inputs = sent_to(device_, inputs);
    recorded.inputs.table = at::zeros({2 * rows + pages}, recorded.inputs.table.options());
  }
  send_into(recorded.inputs.token_ids, inputs.token_ids);
  send_into(recorded.inputs.table, inputs.table);
  if (inputs.angles.cos.defined()) {
    send_into(recorded.inputs.angles.cos, inputs.angles.cos);
    send_into(recorded.inputs.angles.sin, inputs.angles.sin);
  }
  if (!recorded.graph) {
    recorded.graph = record(
        device_, "decoding", [this, &recorded, logits] { compute(recorded.inputs, logits); },
        first_);
    if (first_ == nullptr) first_ = recorded.graph.get();
  }
  recorded.graph->replay();
  return logits;
}

}  // namespace temper::trainer
