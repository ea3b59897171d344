#include "trainer/adapters/adapter_config.h"
#include "trainer/adapters/adapter_files.h"

#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/checkpoint/scratch.h"
#include "trainer/adapters/lora.h"

namespace temper::trainer {
namespace {

namespace fs = std::filesystem;
using data::Json;
using Names = std::vector<std::string>;

class AdapterFiles : public testing::Test {
 protected:
  recipes::Peft read(const Json& config) {
    fs::create_directories(directory_);
    write_all(directory_ / "adapter_config.json", config.dump());
    return read_adapter_config(directory_);
  }

  // The findings, without the path of the test.
  Names refusal(const Json& config) {
    return lines([&] { read(config); });
  }

  template <typename Call>
  Names lines(const Call& call) {
    Names lines;
    try {
      call();
    } catch (const UserError& error) {
      for (std::string line : error.lines()) {
        if (const size_t at = line.find(directory_.string()); at != std::string::npos) {
          line.replace(at, directory_.string().size(), "adapter");
        }
        lines.push_back(line);
      }
    }
    return lines;
  }

  const Scratch scratch_;
  const fs::path directory_ = scratch_ / "adapter";
};

recipes::Peft ia3_on_whole_names() {
  recipes::Peft peft;
  peft.method = "ia3";
  peft.feedforward_modules = Names{"down_proj"};
  peft.target_modules = "all-linear";
  return peft;
}

TEST_F(AdapterFiles, AConfigOfPeft010IsReadWithTodaysDefaults) {
  const recipes::Peft peft = read(Json::parse(R"({
    "alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": "org/base", "bias": "none",
    "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
    "layer_replication": null, "layers_pattern": null, "layers_to_transform": [0, 3],
    "loftq_config": {}, "lora_alpha": 16.0, "lora_dropout": 0.05, "megatron_config": null,
    "megatron_core": "megatron.core", "modules_to_save": null, "peft_type": "LORA", "r": 4,
    "rank_pattern": {"q_proj": 2}, "revision": null, "target_modules": ["v_proj", "q_proj"],
    "task_type": "CAUSAL_LM", "use_dora": true, "use_rslora": false})"));
  EXPECT_EQ(peft.method, "lora");
  EXPECT_EQ(peft.r, 4);
  EXPECT_EQ(peft.lora_alpha, 16);
  EXPECT_EQ(peft.lora_dropout, 0.05);
  EXPECT_EQ(peft.use_dora, true);
  EXPECT_EQ(peft.lora_bias, false);
  EXPECT_EQ(peft.init_lora_weights, recipes::BoolOrWord(true));
  EXPECT_EQ(peft.rank_pattern.at("q_proj"), 2);
  EXPECT_EQ(peft.target_modules, recipes::NamesOrPattern(Names{"v_proj", "q_proj"}));
  EXPECT_EQ(peft.layers_to_transform, recipes::IntOrInts(std::vector<int64_t>{0, 3}));
  EXPECT_FALSE(peft.exclude_modules.has_value());
  EXPECT_EQ(adapter_base(directory_), "org/base");
}

TEST_F(AdapterFiles, SettingsThatTemperDoesNotDoAreRefusedByName) {
  EXPECT_EQ(refusal({{"peft_type", "LORA"},
                     {"r", "8"},
                     {"use_qalora", true},
                     {"layer_replication", {{0, 2}}},
                     {"future_field", 3},
                     {"future_switch", false},
                     {"future_thing", nullptr},
                     {"megatron_core", "megatron.core"},
                     {"task_type", "TOKEN_CLS"},
                     {"init_lora_weights", "corda"}}),
            (Names{"adapter/adapter_config.json: r = \"8\": must be a whole number",
                   "adapter/adapter_config.json: layer_replication = [[0,2]]: is a setting that "
                   "Temper does not do",
                   "adapter/adapter_config.json: use_qalora = true: is a setting that Temper does "
                   "not do",
                   "adapter/adapter_config.json: init_lora_weights = \"corda\": the base weights "
                   "that it belongs to cannot be made again from here: convert it (PEFT: "
                   "save_pretrained with path_initial_model_for_weight_conversion)",
                   "adapter/adapter_config.json: future_field = 3: is a setting that Temper does "
                   "not know",
                   "adapter/adapter_config.json: task_type = \"TOKEN_CLS\": must be \"CAUSAL_LM\" or \"SEQ_CLS\""}));
}

TEST_F(AdapterFiles, UnknownMethodsAreRefusedWithTheList) {
  EXPECT_EQ(refusal({{"peft_type", "XLORA"}}),
            (Names{"adapter/adapter_config.json: peft_type = \"XLORA\" is not supported: must be "
                   "one of LORA, ADALORA, IA3, LOHA, LOKR, VERA, OFT, BOFT, LN_TUNING, "
                   "PREFIX_TUNING, PROMPT_TUNING, P_TUNING"}));
  EXPECT_EQ(refusal({{"r", 8}}), (Names{"adapter/adapter_config.json: peft_type is missing: is "
                                        "this an adapter of PEFT?"}));
  EXPECT_EQ(refusal({{"peft_type", "OFT"}, {"r", 8}}).size(), 1u);
  EXPECT_EQ(refusal({{"peft_type", "PROMPT_TUNING"}}),
            (Names{"adapter/adapter_config.json: num_virtual_tokens is missing"}));
}

TEST_F(AdapterFiles, AlphasThatAreNoWholeNumbersStayAsTheyAre) {
  const Json written = {{"peft_type", "LORA"},
                        {"r", 2},
                        {"lora_alpha", 5},
                        {"init_lora_weights", "eva"},
                        {"target_modules", {"q_proj", "v_proj"}},
                        {"rank_pattern", {{"q_proj", 3}, {"v_proj", 4}}},
                        {"alpha_pattern", {{"q_proj", 7.5}, {"v_proj", 10.0}}}};
  const recipes::Peft peft = read(written);
  EXPECT_EQ(lora_scale(peft, "model.layers.0.self_attn.q_proj", 3), 2.5);
  EXPECT_EQ(lora_scale(peft, "model.layers.0.self_attn.v_proj", 4), 2.5);
  EXPECT_EQ(adapter_config(peft, "", *peft.target_modules, {}).at("alpha_pattern"),
            Json({{"v_proj", 10}, {"q_proj", 7.5}}));
}

TEST_F(AdapterFiles, FeedforwardNamesOfIa3AreAmongItsTargetNames) {
  const Json config =
      adapter_config(ia3_on_whole_names(), "",
                     Names{"model.layers.0.mlp.down_proj", "model.layers.0.mlp.up_proj"}, {});
  EXPECT_EQ(config.at("feedforward_modules"), Json({"model.layers.0.mlp.down_proj"}));
}

TEST_F(AdapterFiles, RanksThatAdaloraLeftAreMasksOfInitR) {
  recipes::Peft peft;
  peft.method = "adalora";
  peft.init_r = 3;
  peft.total_step = 9;
  peft.rank_pattern = {{"model.layers.0.self_attn.q_proj", 2}};
  const Json config = adapter_config(peft, "", Names{"q_proj"}, {});
  EXPECT_EQ(config.at("rank_pattern"),
            Json({{"model.layers.0.self_attn.q_proj.lora_E", {true, true, false}}}));
  EXPECT_EQ(read(config).rank_pattern, peft.rank_pattern);
}

TEST_F(AdapterFiles, APromptThatBeganAsTextNamesItsTokenizer) {
  recipes::Peft peft;
  peft.method = "prompt_tuning";
  peft.num_virtual_tokens = 4;
  peft.prompt_tuning_init = "TEXT";
  peft.prompt_tuning_init_text = "Be kind";
  EXPECT_EQ(adapter_config(peft, "base", {}, {}).at("tokenizer_name_or_path"), Json("base"));
}

TEST_F(AdapterFiles, TensorsComeBackInTheirOwnTypes) {
  const NamedTensors written = {{"base_model.model.x.lora_A.weight", at::randn({2, 3})},
                                {"base_model.model.lm_head.weight", at::randn({4}).to(at::kHalf)}};
  write_adapter(directory_, {{"peft_type", "LORA"}}, written, "# card\n");
  write_adapter(directory_, {{"peft_type", "LORA"}}, written, "# another card\n");
  EXPECT_EQ(read_all(directory_ / "README.md"), "# another card\n");
  EXPECT_EQ(SafetensorsFile(directory_ / "adapter_model.safetensors").metadata().at("format"),
            "pt");
  const NamedTensors back = {{written[0].first, at::zeros({2, 3})},
                             {written[1].first, at::zeros({4})}};
  read_adapter(directory_, back);
  EXPECT_TRUE(at::equal(back[0].second, written[0].second));
  EXPECT_TRUE(at::equal(back[1].second, written[1].second.to(at::kFloat)));
}

TEST_F(AdapterFiles, NothingButAnAdapterIsReplaced) {
  fs::create_directories(directory_);
  write_all(directory_ / "model.safetensors", "somebody's");
  EXPECT_EQ(lines([&] { write_adapter(directory_, Json::object(), {}, ""); }),
            (Names{"adapter: exists and holds 'model.safetensors', which no export writes: choose "
                   "another directory or remove it"}));
}

TEST_F(AdapterFiles, EverythingThatDoesNotFitIsSaidAtOnce) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  write_adapter(directory_, Json::object(),
                {{"fits", at::ones({2})},
                 {"misshapen", at::ones({2, 3})},
                 {"nan", at::full({2}, nan)},
                 {"ints", at::ones({2}, at::kLong)},
                 {"unexpected", at::ones({1})}},
                "");
  const at::Tensor two = at::zeros({2});
  EXPECT_EQ(
      lines([&] {
        read_adapter(directory_, {{"fits", two},
                                  {"misshapen", at::zeros({2, 4})},
                                  {"nan", two},
                                  {"ints", two},
                                  {"absent", two}});
      }),
      (Names{"adapter/adapter_model.safetensors: 'misshapen' is [2,3], must be [2,4]: an "
             "adapter for another base model?",
             "adapter/adapter_model.safetensors: 'nan' holds NaN or infinite values",
             "adapter/adapter_model.safetensors: 'ints' is Long, not floating-point",
             "adapter/adapter_model.safetensors: 'absent' is missing",
             "adapter/adapter_model.safetensors: 'unexpected' has no place in this model with "
             "this adapter_config.json"}));
}

TEST_F(AdapterFiles, APickleIsNotRead) {
  fs::create_directories(directory_);
  EXPECT_EQ(lines([&] { read_adapter(directory_, {}); }),
            (Names{"adapter: has no adapter_model.safetensors"}));
  write_all(directory_ / "adapter_model.bin", "pickle");
  EXPECT_EQ(lines([&] { read_adapter(directory_, {}); }),
            (Names{"adapter: holds only adapter_model.bin, a pickle, which may run code when it is "
                   "read: convert it to adapter_model.safetensors (PEFT: model.save_pretrained)"}));
}

}  // namespace
}  // namespace temper::trainer
