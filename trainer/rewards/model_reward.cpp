#include <cmath>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "data/loader/batch.h"
#include "data/text/tokenizer.h"
#include "recipes/diagnostic.h"
#include "trainer/models/config.h"
#include "trainer/models/model.h"
#include "trainer/ops/head_scores.h"
#include "trainer/rewards/registry.h"

namespace temper::trainer {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPackedTokens = 4096;  // of one forward pass

struct Text {
  std::vector<int32_t> ids;
  std::string problem;  // why it is not scored
};

/// The output of a model with one label for prompt + completion, as TRL's trainers score by a
/// sequence classifier: the text is tokenized without further special tokens, and the head is read
/// at the last token that is not padding. In float32.
class ModelReward final : public Reward {
 public:
  ModelReward(std::unique_ptr<Model> model, data::Tokenizer tokenizer, std::optional<int32_t> pad)
      : model_(std::move(model)), tokenizer_(std::move(tokenizer)), pad_(pad) {}

  void submit(const Completed& completed) override {
    Text text{tokenizer_.encode(completed.prompt + completed.completion, false), ""};
    const int64_t longest = model_->config().max_position_embeddings;
    if (text.ids.empty()) text.problem = "a text without tokens";
    if (static_cast<int64_t>(text.ids.size()) > longest) {
      text.problem = "a text of " + std::to_string(text.ids.size()) +
                     " tokens; the reward model reads " + std::to_string(longest);
    }
    texts_.push_back(std::move(text));
  }

  std::vector<double> collect() override {
    const std::vector<Text> texts = std::exchange(texts_, {});
    std::vector<double> scores(texts.size(), std::nan(""));
    std::vector<size_t> packed;
    size_t tokens = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      if (!texts[i].problem.empty()) {
        count_error(texts[i].problem);
        continue;
      }
      if (!packed.empty() && tokens + texts[i].ids.size() > kPackedTokens) {
        score(texts, packed, scores);
        packed.clear();
        tokens = 0;
      }
      packed.push_back(i);
      tokens += texts[i].ids.size();
    }
    if (!packed.empty()) score(texts, packed, scores);
    return scores;
  }

  int64_t errors() const override { return errors_; }
  std::string last_error() const override { return last_error_; }

 private:
  // One row of documents, which do not see each other.
  void score(const std::vector<Text>& texts, const std::vector<size_t>& packed,
             std::vector<double>& scores) {
    const at::NoGradGuard no_grad;
    std::vector<int64_t> ids, positions, read_at;
    std::vector<int32_t> ends = {0};
    for (const size_t i : packed) {
      const std::vector<int32_t>& text = texts[i].ids;
      size_t last = text.size() - 1;
      while (last > 0 && text[last] == pad_) --last;
      read_at.push_back(ends.back() + static_cast<int64_t>(last));
      ids.insert(ids.end(), text.begin(), text.end());
      positions.resize(ids.size());
      std::iota(positions.begin() + ends.back(), positions.end(), 0);
      ends.push_back(static_cast<int32_t>(ids.size()));
    }
    data::Batch batch;
    batch.token_ids = at::tensor(ids, at::kLong).unsqueeze(0);
    batch.positions = at::tensor(positions, at::kLong).unsqueeze(0);
    batch.document_ends = at::tensor(ends, at::kInt);
    batch.rows = 1;
    const at::Tensor values =
        head_scores(model_->hidden(batch), model_->head(), at::tensor(read_at, at::kLong))
            .squeeze(1)
            .cpu()
            .contiguous();
    for (size_t k = 0; k < packed.size(); ++k) {
      const double value = values.const_data_ptr<float>()[k];
      if (std::isfinite(value)) {
        scores[packed[k]] = value;
      } else {
        count_error("the reward model's score is not finite");
      }
    }
  }

  void count_error(const std::string& problem) {
    ++errors_;
    last_error_ = problem;
  }

  std::unique_ptr<Model> model_;
  data::Tokenizer tokenizer_;
  std::optional<int32_t> pad_;
  std::vector<Text> texts_;
  int64_t errors_ = 0;
  std::string last_error_;
};

}  // namespace

std::unique_ptr<Reward> build_model_reward(const recipes::Reward& reward, int64_t,
                                           at::Device device) {
  const fs::path directory = reward.path.value_or("");
  const std::string where = key_of(reward, "path") + " = \"" + directory.string() + "\"";
  if (!fs::is_directory(directory)) {
    throw UserError(where + ": no such directory (a model with a head of one label)");
  }
  const ModelConfig config = load_config(directory);
  if (config.num_labels != 1) {
    throw UserError(where + ": " +
                    (config.num_labels == 0
                         ? "a " + config.architecture + " gives text, not scores"
                         : "a head of " + std::to_string(config.num_labels) + " labels") +
                    "; a reward model has one label (objective.kind = \"reward\" trains one)");
  }
  data::Tokenizer tokenizer = data::Tokenizer::load(directory);
  if (tokenizer.size() > config.vocab_size) {
    throw UserError(where + ": its tokenizer has " + std::to_string(tokenizer.size()) +
                    " ids, but config.json has vocab_size = " + std::to_string(config.vocab_size));
  }
  std::optional<int32_t> pad;
  if (const auto found = config.json.find("pad_token_id");
      found != config.json.end() && found->is_number_integer()) {
    pad = found->get<int32_t>();
  }
  const ModelOptions options{.frozen = true, .device = device};
  std::unique_ptr<Model> model = build_model(config, options);
  load_weights(*model, options, directory);
  return std::make_unique<ModelReward>(std::move(model), std::move(tokenizer), pad);
}

}  // namespace temper::trainer
