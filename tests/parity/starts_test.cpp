// LoRA's starts that look at data or quantise the base against peft 0.21.2: goldens of
// make_starts.py.
//
// Ranks, targets and the number of batches are equal. Directions, from SVDs of float32 inputs that
// differ in their last bits: 1e-4 of a unit vector. LoftQ's base has the same codes: 1e-6; its
// factors are as unique as the SVD of the rest is: their product to 1e-5.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "data/loader/batch.h"
#include "recipes/peft_methods.h"
#include "tests/parity/golden.h"
#include "trainer/adapters/adapters.h"
#include "trainer/adapters/eva.h"
#include "trainer/adapters/incremental_pca.h"
#include "trainer/adapters/loftq.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/models/model.h"

namespace temper::trainer {
namespace {

using data::Json;

double worst(const at::Tensor& found, const at::Tensor& expected) {
  return (found - expected).abs().max().item<double>();
}

TEST(IncrementalPcaParity, FindsPeftsDirectionsBatchByBatch) {
  const SafetensorsFile golden(golden_files("starts") / "pca.safetensors");
  IncrementalPca pca(3);
  for (int i = 0; golden.contains("rows/" + std::to_string(i)); ++i) {
    const auto expected = [&](const std::string& what) {
      return golden.tensor(what + "/" + std::to_string(i));
    };
    pca.add(expected("rows"));
    EXPECT_LT(worst(pca.components(), expected("components")), 1e-5) << i;
    EXPECT_LT(worst(pca.singular_values() / expected("singular_values"), at::ones({3})), 1e-6) << i;
    EXPECT_LT(worst(pca.explained() / expected("explained"), at::ones({3})), 1e-6) << i;
    EXPECT_EQ(pca.components().scalar_type(), expected("components").scalar_type()) << i;
  }
  EXPECT_TRUE(pca.begun());
}

struct EvaCase : testing::TestWithParam<const char*> {
  EvaCase() {
    const auto directory = golden_files("starts") / "model";
    model = build_model(load_config(directory), options);
    load_weights(*model, options, directory);
  }

  // labels are predicted one position before the token that they are.
  static data::Batch batch_of(const Json& json) {
    const auto tensor = [&](const char* key) {
      std::vector<at::Tensor> rows;
      for (const Json& row : json.at(key))
        rows.push_back(at::tensor(row.get<std::vector<int64_t>>(), at::kLong));
      return at::stack(rows);
    };
    data::Batch batch;
    batch.token_ids = tensor("input_ids");
    const at::Tensor labels = tensor("labels"), mask = tensor("attention_mask");
    const int64_t rows = labels.size(0), length = labels.size(1);
    batch.labels = at::full({rows, length}, -100, at::kLong);
    batch.labels.narrow(1, 0, length - 1).copy_(labels.narrow(1, 1, length - 1));
    batch.positions = at::zeros({rows, length}, at::kLong);
    std::vector<int32_t> ends = {0};
    for (int64_t r = 0; r < rows; ++r) {
      const auto real = mask[r].sum().item<int64_t>();
      batch.positions[r].narrow(0, 0, real).copy_(at::arange(real));
      batch.positions[r].narrow(0, real, length - real).copy_(at::arange(length - real));
      ends.push_back(static_cast<int32_t>(r * length + real));
      if (real < length) ends.push_back(static_cast<int32_t>((r + 1) * length));
    }
    batch.document_ends = at::tensor(ends, at::kInt);
    batch.rows = rows;
    return batch;
  }

  static recipes::Peft peft_of(const Json& settings) {
    recipes::Recipe recipe;
    recipes::Peft& peft = recipe.peft;
    peft.method = "lora";
    peft.init_lora_weights = std::string("eva");
    peft.r = settings.at("r").get<int64_t>();
    if (settings.contains("lora_alpha")) peft.lora_alpha = settings.at("lora_alpha").get<int64_t>();
    const Json& targets = settings.at("target_modules");
    if (targets.is_string()) {
      peft.target_modules = targets.get<std::string>();
    } else {
      peft.target_modules = targets.get<std::vector<std::string>>();
    }
    const auto pattern = [&](const char* key, std::map<std::string, int64_t>& into) {
      if (settings.contains(key)) into = settings.at(key).get<std::map<std::string, int64_t>>();
    };
    pattern("rank_pattern", peft.rank_pattern);
    pattern("alpha_pattern", peft.alpha_pattern);
    const Json eva = settings.value("eva_config", Json::object());
    if (eva.contains("rho")) peft.eva_rho = eva.at("rho").get<double>();
    if (eva.contains("tau")) peft.eva_tau = eva.at("tau").get<double>();
    if (eva.contains("whiten")) peft.eva_whiten = eva.at("whiten").get<bool>();
    if (eva.contains("use_label_mask")) peft.eva_use_label_mask = eva.at("use_label_mask").get<bool>();
    if (eva.contains("adjust_scaling_factors"))
      peft.eva_adjust_scaling_factors = eva.at("adjust_scaling_factors").get<bool>();
    recipes::fill_in_peft(recipe);
    return peft;
  }

  ModelOptions options{.frozen = true};
  std::unique_ptr<Model> model;
};

TEST_P(EvaCase, RanksScalesAndDirectionsEqualPefts) {
  const Json all = data::read_json(golden_files("starts") / "eva.json");
  const SafetensorsFile golden(golden_files("starts") / "eva.safetensors");
  const Json& expected = all.at("cases").at(GetParam());
  std::vector<data::Batch> batches;
  for (const Json& batch : all.at("batches")) batches.push_back(batch_of(batch));
  size_t next = 0;
  const EvaStart start = find_eva_start(peft_of(expected.at("settings")), *model,
                                        [&] { return batches[next++ % batches.size()]; });
  EXPECT_EQ(start.batches, expected.at("batches").get<int64_t>());
  EXPECT_EQ(Json(start.peft.rank_pattern),
            Json(expected.at("rank_pattern").get<std::map<std::string, int64_t>>()));
  Adapters adapters(start.peft, *model, options);
  adapters.initialize(1);
  adapters.start_from(start.a);
  size_t modules = 0;
  for (const auto& [key, tensor] : adapters.tensors()) {
    const std::string start_of_key = "base_model.model.", end = ".lora_A.weight";
    if (!key.ends_with(end)) {
      EXPECT_EQ(tensor.abs().max().item<double>(), 0) << key;
      continue;
    }
    const std::string module =
        key.substr(start_of_key.size(), key.size() - start_of_key.size() - end.size());
    ++modules;
    ASSERT_TRUE(expected.at("scaling").contains(module)) << module;
    EXPECT_DOUBLE_EQ(lora_scale(start.peft, module, tensor.size(0)),
                     expected.at("scaling").at(module).get<double>())
        << module;
    const at::Tensor theirs = golden.tensor(std::string(GetParam()) + "/" + module);
    ASSERT_EQ(tensor.sizes(), theirs.sizes()) << module;
    EXPECT_LT(worst(tensor, theirs), 1e-4 * theirs.abs().max().item<double>()) << module;
  }
  EXPECT_EQ(modules, expected.at("scaling").size());
}

INSTANTIATE_TEST_SUITE_P(All, EvaCase,
                         testing::Values("default", "all_tokens", "whiten", "keep", "patterns"));

struct Quantised {
  const char* name;
  int64_t bits, iterations;
};

TEST(LoftqParity, BaseAndFactorsEqualPefts) {
  const SafetensorsFile golden(golden_files("starts") / "loftq.safetensors");
  for (const Quantised& one : {Quantised{"nf4", 4, 1}, Quantised{"nf4_often", 4, 4},
                               Quantised{"int8", 8, 1}, Quantised{"int8_often", 8, 3}}) {
    SCOPED_TRACE(one.name);
    const auto expected = [&](const char* what) {
      return golden.tensor(std::string(one.name) + "/" + what).clone();
    };
    const at::Tensor weight = expected("weight");
    const LoftqStart start = loftq_start(weight, 4, one.bits, one.iterations, one.name);
    const at::Tensor base = loftq_base(weight, start.taken_a, start.taken_b, one.bits, one.name);
    EXPECT_LT(worst(base, expected("base")), 1e-6);
    EXPECT_LT(worst(at::mm(start.b, start.a), at::mm(expected("b"), expected("a"))), 1e-5);
    // Both factors have the singular values' roots.
    EXPECT_LT(worst(start.a.norm(2, {1}), expected("a").norm(2, {1})), 1e-5);
    EXPECT_LT(worst(start.b.norm(2, {0}), expected("b").norm(2, {0})), 1e-5);
  }
}

}  // namespace
}  // namespace temper::trainer
