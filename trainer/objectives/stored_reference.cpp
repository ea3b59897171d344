#include "trainer/objectives/stored_reference.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <xxhash.h>

#include <ATen/ATen.h>

#include "data/loader/batch.h"
#include "data/shards/token_dataset.h"
#include "recipes/diagnostic.h"
#include "trainer/models/model.h"

namespace temper::trainer {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLogProbs = "log_probs";  // [n of all rows] float32
constexpr const char* kEnds = "ends";           // [rows + 1] int64: of each row's targets

class Fingerprint {
 public:
  Fingerprint() : state_(XXH3_createState()) { XXH3_128bits_reset(state_); }
  ~Fingerprint() { XXH3_freeState(state_); }
  Fingerprint(const Fingerprint&) = delete;
  Fingerprint& operator=(const Fingerprint&) = delete;

  void add(const void* bytes, size_t size) { XXH3_128bits_update(state_, bytes, size); }
  void add(const std::string& text) { add(text.c_str(), text.size() + 1); }
  void add(const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    const at::Tensor whole = tensor.detach().cpu().contiguous();
    add(whole.const_data_ptr(), whole.nbytes());
  }
  std::string text() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_);
    char digits[33];
    std::snprintf(digits, sizeof digits, "%016llx%016llx",
                  static_cast<unsigned long long>(hash.high64),
                  static_cast<unsigned long long>(hash.low64));
    return digits;
  }

 private:
  XXH3_state_t* state_;
};

class StoredReference : public Reference {
 public:
  explicit StoredReference(const SafetensorsFile& file)
      : log_probs_(file.tensor(kLogProbs)), ends_(file.tensor(kEnds)) {}

  at::Tensor log_probs(const data::Batch& batch, double temperature) override {
    TEMPER_CHECK(temperature == 1.0 && static_cast<int64_t>(batch.row_numbers.size()) == batch.rows,
                 "stored log-probabilities are of numbered rows, at temperature 1");
    const int64_t* end = ends_.const_data_ptr<int64_t>();
    std::vector<at::Tensor> rows;
    for (const int64_t row : batch.row_numbers) {
      rows.push_back(log_probs_.narrow(0, end[row], end[row + 1] - end[row]));
    }
    at::Tensor all = at::cat(rows);
    TEMPER_CHECK(all.numel() == batch.targets.labels.numel(), "stored for another data set");
    return all;
  }

 private:
  at::Tensor log_probs_, ends_;
};

}  // namespace

fs::path stored_reference_file(const fs::path& directory, Reference& live,
                               const data::TokenDataset& dataset, const data::RowLayout& layout,
                               const std::string& how) {
  TEMPER_CHECK(live.model() != nullptr, "only what computes can be stored");
  Model& model = *live.model();
  Fingerprint fingerprint;
  fingerprint.add(how);
  fingerprint.add(model.config().json.dump());
  for (const Parameter& parameter : model.parameters()) {
    fingerprint.add(parameter.name + c10::toString(parameter.value.scalar_type()));
    fingerprint.add(parameter.value);
  }
  for (const LinearSlot& slot : model.linears()) {
    for (const QuantizedMatrix& matrix : slot.projection->quantized) {
      fingerprint.add(matrix.codes);
      fingerprint.add(matrix.absmax);
      fingerprint.add(matrix.absmax_codes);
    }
  }
  fingerprint.add(layout.prompts_too ? "all tokens" : "supervised tokens");
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const data::TokenizedRow row = dataset.row(i);
    for (const data::Example& document : row.documents) {
      const int64_t length = static_cast<int64_t>(document.ids.size());
      fingerprint.add(&length, sizeof length);
      fingerprint.add(document.ids.data(), document.ids.size() * sizeof(int32_t));
      fingerprint.add(document.supervised.data(), document.supervised.size());
    }
  }
  return directory / ("reference-" + fingerprint.text() + ".safetensors");
}

std::unique_ptr<Reference> stored_reference(const fs::path& file, Reference& live,
                                            const data::TokenDataset& dataset,
                                            const data::LoaderOptions& options,
                                            parallel::Communicator& communicator) {
  // Rank 0 decides, so that all do the same.
  at::Tensor there = at::full({1}, int64_t{fs::exists(file)}, at::kLong);
  communicator.broadcast(there, 0)->wait();
  if (there.item<int64_t>() == 0) {
    std::vector<at::Tensor> all;  // rank 0
    std::vector<int64_t> ends{0};
    const int64_t round = options.micro * communicator.size();
    for (int64_t first = 0; first < dataset.size(); first += round) {
      // Of each rank's rows, in order; the others' are zeros until they are added.
      std::vector<at::Tensor> parts;
      for (int64_t rank = 0; rank < communicator.size(); ++rank) {
        const int64_t begin = first + rank * options.micro;
        std::vector<data::TokenizedRow> rows;
        for (int64_t i = begin; i < std::min(begin + options.micro, dataset.size()); ++i) {
          rows.push_back(dataset.row(i));
        }
        if (rows.empty()) continue;
        const data::Batch batch = data::collate_rows(std::move(rows), *options.row_layout);
        const int64_t before = ends.back();
        size_t document = 0;
        for (const data::TokenizedRow& row : batch.tokenized) {
          document += row.documents.size();
          ends.push_back(before + batch.targets.ends.const_data_ptr<int64_t>()[document]);
        }
        parts.push_back(rank == communicator.rank()
                            ? live.log_probs(batch, 1.0).cpu()
                            : at::zeros({batch.targets.labels.numel()}, at::kFloat));
      }
      at::Tensor log_probs = at::cat(parts);
      communicator.all_reduce(log_probs)->wait();
      if (communicator.rank() == 0) all.push_back(log_probs);
    }
    if (communicator.rank() == 0) {
      write_safetensors(file, {{kLogProbs, at::cat(all)}, {kEnds, at::tensor(ends, at::kLong)}});
    }
    communicator.barrier();
  }
  return std::make_unique<StoredReference>(SafetensorsFile(file));
}

}  // namespace temper::trainer
