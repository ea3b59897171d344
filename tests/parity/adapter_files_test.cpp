// adapter_config.json and the choice of modules against peft: goldens of make_adapter_files.py.
#include "trainer/adapters/adapter_config.h"
#include "trainer/adapters/adapter_files.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "data/io/json.h"
#include "recipes/diagnostic.h"
#include "tests/parity/golden.h"
#include "tests/trainer/checkpoint/scratch.h"
#include "trainer/adapters/targets.h"

namespace temper::trainer {
namespace {

using data::Json;
using Names = std::vector<std::string>;

Json golden() {
  return data::read_json(golden_files("adapter_files") / "adapter_files.json");
}

// The tiny Llama of the script.
ModelConfig tiny_llama() {
  ModelConfig config;
  config.model_type = "llama";
  config.hidden_size = 32;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  return config;
}

// And its tiny GPT-2.
ModelConfig tiny_gpt2() {
  ModelConfig config = tiny_llama();
  config.model_type = "gpt2";
  config.num_key_value_heads = config.num_attention_heads;
  config.stores_transposed = true;
  return config;
}

std::vector<TargetModule> modules_of(const Json& list) {
  std::vector<TargetModule> modules;
  for (const Json& module : list) {
    modules.push_back({.name = module.at("name"),
                       .linear = module.at("linear"),
                       .output_head = module.at("output_head")});
  }
  return modules;
}

recipes::NamesOrPattern names_or_pattern(const Json& json) {
  if (json.is_string()) return json.get<std::string>();
  return json.get<Names>();
}

recipes::Peft peft_of(const Json& choice) {
  recipes::Peft peft;
  peft.method = "lora";
  for (const auto& [key, value] : choice.items()) {
    if (key == "target_modules") {
      peft.target_modules = names_or_pattern(value);
    } else if (key == "target_parameters") {
      peft.target_parameters = value.get<Names>();
    } else if (key == "exclude_modules") {
      peft.exclude_modules = names_or_pattern(value);
    } else if (key == "modules_to_save") {
      peft.modules_to_save = value.get<Names>();
    } else if (key == "layers_pattern") {
      peft.layers_pattern = names_or_pattern(value);
    } else if (value.is_array()) {
      peft.layers_to_transform = value.get<std::vector<int64_t>>();
    } else {
      peft.layers_to_transform = value.get<int64_t>();
    }
  }
  return peft;
}

Json sorted_lists(Json value) {
  if (value.is_array()) std::sort(value.begin(), value.end());
  return value;
}

void expect_written_again(const Json& configs, const ModelConfig& model) {
  for (const auto& [name, written] : configs.items()) {
    SCOPED_TRACE(name);
    const Scratch scratch;
    write_all(scratch / "adapter_config.json", written.dump());
    const recipes::Peft peft = read_adapter_config(scratch.path());
    Json ours = adapter_config(peft, "", peft.target_modules.value_or(recipes::NamesOrPattern()),
                               model);
    EXPECT_EQ(ours.dump(1), written.dump(1));
  }
}

TEST(AdapterFilesParity, EveryConfigOfPeftIsReadAndWrittenAgainAsItWas) {
  expect_written_again(golden().at("configs"), tiny_llama());
  expect_written_again(golden().at("configs_of_gpt2"), tiny_gpt2());
}

TEST(AdapterFilesParity, TheChosenModulesAreThoseOfPeft) {
  const Json all = golden();
  const std::vector<TargetModule> modules = modules_of(all.at("modules"));
  for (const Json& asked : all.at("choices")) {
    SCOPED_TRACE(asked.at("choice").dump());
    const recipes::Peft peft = peft_of(asked.at("choice"));
    Names chosen = find_targets(peft, "llama", modules);
    Names theirs = asked.at("chosen").get<Names>();
    std::sort(chosen.begin(), chosen.end());
    std::sort(theirs.begin(), theirs.end());
    EXPECT_EQ(chosen, theirs);
    const recipes::NamesOrPattern saved = saved_targets(peft, modules);
    const Json ours = std::visit([](const auto& value) { return Json(value); }, saved);
    EXPECT_EQ(sorted_lists(ours), asked.at("saved"));
  }
}

TEST(AdapterFilesParity, DefaultTargetsAreThoseOfPeft) {
  const Json all = golden();
  for (const auto& [method, types] : all.at("defaults").items()) {
    for (const auto& [model_type, theirs] : types.items()) {
      SCOPED_TRACE(method + " " + model_type);
      recipes::Peft peft;
      peft.method = method;
      if (theirs.is_null()) {
        EXPECT_THROW(set_default_targets(peft, model_type), UserError);
        continue;
      }
      set_default_targets(peft, model_type);
      EXPECT_EQ(sorted_lists(std::get<Names>(*peft.target_modules)), theirs.at("target_modules"));
      EXPECT_EQ(peft.feedforward_modules.has_value(), theirs.contains("feedforward_modules"));
      if (peft.feedforward_modules) {
        EXPECT_EQ(Json(std::get<Names>(*peft.feedforward_modules)),
                  theirs.at("feedforward_modules"));
      }
    }
  }
}

TEST(AdapterFilesParity, PatternsGiveTheRanksThatPeftGives) {
  const Json all = golden();
  for (const Json& asked : all.at("patterns")) {
    SCOPED_TRACE(asked.at("pattern").dump());
    const auto patterns = asked.at("pattern").get<std::map<std::string, int64_t>>();
    for (const auto& [module, value] : asked.at("values").items()) {
      EXPECT_EQ(pattern_value(patterns, module, 8), value) << module;
    }
  }
}

}  // namespace
}  // namespace temper::trainer
