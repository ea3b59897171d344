#include "trainer/adapters/eva.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "trainer/adapters/incremental_pca.h"
#include "trainer/adapters/parts.h"
#include "trainer/adapters/targets.h"
#include "trainer/models/model.h"

namespace temper::trainer {

namespace {

constexpr const char* kHead = "lm_head";
// PEFT goes on for ever. Directions of a hundred thousand rows have long settled or never will.
constexpr int64_t kMostBatches = 1000;

// A target: a part of a projection, or the output head.
struct Target {
  std::string module;
  Projection* projection = nullptr;  // null: the head
  size_t part = 0;
  int64_t inputs = 0;
  int64_t rank = 0;        // as peft.r and rank_pattern have it
  int64_t directions = 0;  // the most that it may get
  size_t input = 0;        // the first target with the same input
};

std::vector<Target> targets_of(const recipes::Peft& peft, Model& model) {
  const std::vector<std::string> names = find_targets(peft, model.config().model_type,
                                                      modules_of(model));
  const auto is_target = [&](const std::string& module) {
    return std::find(names.begin(), names.end(), module) != names.end();
  };
  std::vector<Target> targets;
  const auto add = [&](Target target, int64_t outputs) {
    target.rank = pattern_value(peft.rank_pattern, target.module, *peft.r);
    check_rank({target.module, target.inputs, outputs}, "r", target.rank);
    target.directions = std::lrint(static_cast<double>(target.rank) * *peft.eva_rho);
    if (target.directions > target.inputs) {
      throw UserError("peft.eva_config.rho: rho x r = " + std::to_string(target.directions) +
                      " directions are more than the " + std::to_string(target.inputs) +
                      " inputs of " + target.module);
    }
    target.input = targets.size();
    for (size_t i = 0; i < targets.size(); ++i) {
      const bool same = target.projection && targets[i].projection == target.projection;
      if (same) target.input = std::min(target.input, i);
    }
    targets.push_back(std::move(target));
  };
  for (const LinearSlot& slot : model.linears()) {
    if (!is_target(slot.module)) continue;
    add({.module = slot.module,
         .projection = slot.projection,
         .part = slot.part,
         .inputs = slot.in_features},
        slot.out_features);
  }
  if (is_target(kHead)) {
    add({.module = kHead, .inputs = model.head().weight.size(1)}, model.head().weight.size(0));
  }
  for (Target& target : targets) {
    Target& first = targets[target.input];
    first.directions = std::max(first.directions, target.directions);
  }
  for (Target& target : targets) target.directions = targets[target.input].directions;
  return targets;
}

// The input of one or several targets, watched.
struct Watched {
  size_t target = 0;  // the first
  IncrementalPca pca;
  at::Tensor settled;  // [C] bool: this direction has hardly moved
};

// Which of the batch's tokens count, in the flattened [B * T].
at::Tensor counted_tokens(const data::Batch& batch, bool supervised_alone) {
  const int64_t tokens = batch.token_ids.numel();
  if (!batch.labels.defined()) return at::arange(tokens, at::kLong);
  // labels[t] is token t + 1, in the same document: a document's last one is none.
  const at::Tensor predicts = batch.labels.reshape({-1}).ne(-100);
  at::Tensor counted = at::zeros({tokens}, at::kBool);
  if (supervised_alone) {
    if (tokens > 1) counted.narrow(0, 1, tokens - 1).copy_(predicts.narrow(0, 0, tokens - 1));
    return counted.nonzero().squeeze(1);
  }
  // Padding is a document without any label.
  const int32_t* ends = batch.document_ends.const_data_ptr<int32_t>();
  for (int64_t d = 0; d + 1 < batch.document_ends.numel(); ++d) {
    const int64_t length = ends[d + 1] - ends[d];
    if (predicts.narrow(0, ends[d], length).any().item<bool>())
      counted.narrow(0, ends[d], length).fill_(true);
  }
  return counted.nonzero().squeeze(1);
}

void add_rows(Watched& watched, const at::Tensor& x, const at::Tensor& counted, double tau) {
  if (counted.numel() < watched.settled.numel()) return;  // too few to have so many directions
  const at::Tensor before = watched.pca.components();
  watched.pca.add(x.index_select(0, counted.to(x.device())).to(at::kFloat).cpu());
  if (before.defined()) {
    watched.settled = at::cosine_similarity(watched.pca.components(), before).ge(tau);
  }
}

bool is_settled(const Watched& watched, int64_t rank) {
  return watched.settled.narrow(0, 0, rank).all().item<bool>();
}

// One forward pass that shows each unsettled layer's input to its PCA.
class Observed {
 public:
  Observed(std::vector<Watched>& watched, const std::vector<int64_t>& ranks,
           const std::vector<Target>& targets, const at::Tensor& counted, double tau) {
    for (Watched& one : watched) {
      const Target& target = targets[one.target];
      if (is_settled(one, ranks[one.target])) continue;
      if (!target.projection) {
        head_ = [&one, counted, tau](const at::Tensor& x) { add_rows(one, x, counted, tau); };
        continue;
      }
      projections_.push_back(target.projection);
      target.projection->adapted.resize(target.projection->rows.size());
      target.projection->adapted[target.part] = [&one, counted, tau](const at::Tensor& x,
                                                                     const BaseLinear& base) {
        add_rows(one, x, counted, tau);
        return base_output(base, x);
      };
    }
  }
  ~Observed() {
    for (Projection* projection : projections_) projection->adapted.clear();
  }
  Observed(const Observed&) = delete;
  Observed& operator=(const Observed&) = delete;

  void run(Model& model, const data::Batch& batch) const {
    const at::Tensor hidden = model.hidden(batch);
    if (head_) head_(hidden.reshape({-1, hidden.size(-1)}));
  }

 private:
  std::vector<Projection*> projections_;
  std::function<void(const at::Tensor&)> head_;
};

// The ranks that the directions known so far would get.
std::vector<int64_t> current_ranks(const std::vector<Target>& targets,
                                   const std::vector<Watched>& watched) {
  std::map<size_t, at::Tensor> explained;
  for (const Watched& one : watched) explained[one.target] = one.pca.explained();
  std::vector<EvaLayer> layers;
  int64_t budget = 0;
  for (const Target& target : targets) {
    layers.push_back({target.input, explained.at(target.input)});
    budget += target.rank;
  }
  return share_out_ranks(layers, budget);
}

// [peft] with what the ranks have become.
recipes::Peft with_ranks(recipes::Peft peft, Model& model, const std::vector<Target>& targets,
                         const std::vector<int64_t>& ranks) {
  std::map<std::string, int64_t> rank_pattern, alpha_pattern;
  std::map<std::string, double> fractions;
  std::vector<std::string> names = find_targets(peft, model.config().model_type,
                                                modules_of(model));
  for (size_t i = 0; i < targets.size(); ++i) {
    const auto& [module, rank] = std::pair(targets[i].module, targets[i].rank);
    if (ranks[i] == 0) {
      std::erase(names, module);
      continue;
    }
    auto alpha =
        static_cast<double>(pattern_value(peft.alpha_pattern, module, peft.lora_alpha.value()));
    if (*peft.eva_adjust_scaling_factors)
      alpha *= static_cast<double>(ranks[i]) / static_cast<double>(rank);
    if (ranks[i] != *peft.r) rank_pattern[module] = ranks[i];
    if (alpha == static_cast<double>(*peft.lora_alpha)) continue;
    if (alpha == std::floor(alpha)) {
      alpha_pattern[module] = static_cast<int64_t>(alpha);
    } else {
      fractions[module] = alpha;
    }
  }
  peft.rank_pattern = std::move(rank_pattern);
  peft.alpha_pattern = std::move(alpha_pattern);
  peft.alpha_fractions = std::move(fractions);
  peft.target_modules = shortened_targets(names, modules_of(model));
  // The names say them.
  peft.exclude_modules.reset();
  peft.layers_to_transform.reset();
  peft.layers_pattern.reset();
  return peft;
}

}  // namespace

bool starts_in_data(const recipes::Peft& peft) {
  return peft.method == "lora" && peft.init_lora_weights == recipes::BoolOrWord("eva");
}

std::vector<int64_t> share_out_ranks(const std::vector<EvaLayer>& layers, int64_t budget) {
  std::vector<size_t> order;
  for (const bool first : {true, false}) {
    for (size_t i = 0; i < layers.size(); ++i) {
      if ((layers[i].input == i) == first) order.push_back(i);
    }
  }
  std::vector<std::pair<double, size_t>> shares;  // and whose
  for (const size_t i : order) {
    const at::Tensor explained = layers[i].explained.to(at::kDouble).contiguous();
    for (int64_t c = 0; c < explained.numel(); ++c)
      shares.emplace_back(explained.const_data_ptr<double>()[c], i);
  }
  std::stable_sort(shares.begin(), shares.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<int64_t> ranks(layers.size(), 0);
  for (size_t s = 0; s < shares.size() && s < static_cast<size_t>(budget); ++s)
    ++ranks[shares[s].second];
  for (size_t i = 0; i < layers.size(); ++i) {
    int64_t& first = ranks[layers[i].input];
    if (first < ranks[i]) std::swap(first, ranks[i]);
  }
  return ranks;
}

EvaStart find_eva_start(const recipes::Peft& peft, Model& model, const NextBatch& next_batch) {
  const at::NoGradGuard off;
  const std::vector<Target> targets = targets_of(peft, model);
  std::vector<Watched> watched;
  std::vector<int64_t> ranks;
  for (size_t i = 0; i < targets.size(); ++i) {
    const int64_t directions = targets[i].directions;
    ranks.push_back(directions);
    if (targets[i].input != i) continue;
    watched.push_back({i, IncrementalPca(directions), at::zeros({directions}, at::kBool)});
  }
  EvaStart start;
  const auto unsettled = [&] {
    return std::find_if(watched.begin(), watched.end(), [&](const Watched& one) {
      return !is_settled(one, ranks[one.target]);
    });
  };
  for (; unsettled() != watched.end(); ++start.batches) {
    if (start.batches == kMostBatches) {
      throw UserError("peft.init_lora_weights = \"eva\": after " + std::to_string(kMostBatches) +
                      " batches the directions of " + targets[unsettled()->target].module +
                      " still move: a smaller peft.r, eva_config.rho or eva_config.tau, or a "
                      "larger batch.micro, lets them settle");
    }
    const data::Batch batch = next_batch();
    const at::Tensor counted = counted_tokens(batch, *peft.eva_use_label_mask);
    Observed(watched, ranks, targets, counted, *peft.eva_tau).run(model, batch);
    const bool all_begun = std::all_of(watched.begin(), watched.end(),
                                       [](const Watched& one) { return one.pca.begun(); });
    if (all_begun) ranks = current_ranks(targets, watched);
  }
  std::map<size_t, const IncrementalPca*> pca;
  for (const Watched& one : watched) pca[one.target] = &one.pca;
  for (size_t i = 0; i < targets.size(); ++i) {
    if (ranks[i] == 0) continue;
    const IncrementalPca& found = *pca.at(targets[i].input);
    at::Tensor a = found.components().narrow(0, 0, ranks[i]);
    if (*peft.eva_whiten) a = a / found.singular_values().narrow(0, 0, ranks[i]).sqrt().unsqueeze(1);
    start.a[targets[i].module] = a.to(at::kFloat).contiguous();
  }
  start.peft = with_ranks(peft, model, targets, ranks);
  return start;
}

}  // namespace temper::trainer
