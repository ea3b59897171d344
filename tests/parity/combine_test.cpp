// Combined LoRA adapters against peft's add_weighted_adapter: goldens of make_combine.py.
#include "trainer/adapters/combine.h"

#include <fstream>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "tests/parity/golden.h"
#include "trainer/checkpoint/safetensors.h"

namespace temper::trainer {
namespace {

double difference(const at::Tensor& ours, const at::Tensor& theirs) {
  return (ours - theirs).abs().max().item<double>() / theirs.abs().max().item<double>();
}

TEST(CombineParity, EveryCombinationEqualsPeft) {
  std::ifstream file(golden_files("combine") / "cases.json");
  const data::Json cases = data::Json::parse(file).at("cases");
  const SafetensorsFile tensors(golden_files("combine") / "tensors.safetensors");
  for (size_t number = 0; number < cases.size(); ++number) {
    const data::Json& setting = cases[number];
    SCOPED_TRACE(setting.dump());
    const auto factors = [&](const std::string& adapter, const std::string& module) {
      const std::string key = std::to_string(number) + "." + adapter + "." + module;
      return LoraFactors{.a = tensors.tensor(key + ".a"), .b = tensors.tensor(key + ".b")};
    };
    std::vector<LoraModules> adapters;
    for (size_t i = 0; i < setting.at("weights").size(); ++i) {
      LoraModules& modules = adapters.emplace_back();
      for (const std::string module : {"first", "second"}) {
        if (i == 1 && module == "second") continue;
        modules[module] = factors(std::to_string(i), module);
        modules[module].scaling = setting.at("scalings")[i];
      }
    }
    Combination combination;
    combination.type = setting.at("type");
    if (setting.contains("density")) combination.density = setting.at("density").get<double>();
    const CombinedLora combined =
        combine_adapters(adapters, setting.at("weights").get<std::vector<double>>(), combination);
    EXPECT_EQ(combined.r, setting.at("r"));
    EXPECT_EQ(combined.r, setting.at("lora_alpha"));
    ASSERT_EQ(combined.modules.size(), 2u);
    for (const auto& [module, ours] : combined.modules) {
      SCOPED_TRACE(module);
      const LoraFactors theirs = factors("all", module);
      ASSERT_EQ(ours.a.sizes(), theirs.a.sizes());
      ASSERT_EQ(ours.b.sizes(), theirs.b.sizes());
      EXPECT_EQ(ours.scaling, 1.0);
      // Singular vectors are given up to their sign, so products are compared.
      EXPECT_LT(difference(ours.b.matmul(ours.a), theirs.b.matmul(theirs.a)), 1e-6);
      if (combination.type == "svd" && adapters.size() > 1) continue;
      EXPECT_LT(difference(ours.a, theirs.a), 1e-6);
      EXPECT_LT(difference(ours.b, theirs.b), 1e-6);
    }
  }
}

}  // namespace
}  // namespace temper::trainer
