// The keys of [peft] and their defaults against the configs of peft 0.21.2 (make_peft_defaults.py):
// every field of PEFT is a key of that method with the same default, or refused by name.
#include <set>

#include <gtest/gtest.h>

#include "data/io/json.h"
#include "recipes/peft_methods.h"
#include "recipes/schema.h"
#include "tests/parity/golden.h"
#include "trainer/adapters/adapter_fields.h"

namespace temper::recipes {
namespace {

using trainer::to_json;

data::Json golden() {
  return data::read_json(golden_files("peft_defaults") / "defaults.json");
}

// Inherited from LoRA's config, and ignored or refused by AdaLoRA; rank_pattern is what its
// allocator has found, not a setting.
const std::set<std::string> kNotOfAdaLora = {"r",         "use_rslora",   "use_dora",
                                             "lora_bias", "rank_pattern", "alpha_pattern",
                                             "target_parameters"};

TEST(PeftDefaults, EqualPefts) {
  const data::Json expected = golden();
  ASSERT_EQ(expected["methods"].size(), peft_methods().size());
  for (const PeftMethod& method : peft_methods()) {
    ASSERT_TRUE(expected["methods"].contains(method.name)) << method.name;
    std::set<std::string> seen;
    const auto compare = [&](const std::string& key, const data::Json& initial) {
      const std::string where = method.name + ": " + key;
      if (const PeftField* field = method.field(key)) {
        EXPECT_EQ(to_json(field->initial), initial) << where;
        seen.insert(key);
      } else if (method.name == "adalora" && kNotOfAdaLora.contains(key)) {
        EXPECT_NE(find_key("peft." + key), nullptr) << where;
      } else {
        EXPECT_NE(find_later("peft." + key), nullptr) << where;
      }
    };
    for (const auto& [name, initial] : expected["methods"][method.name].items()) {
      if (!expected["sub_configs"].contains(name)) {
        compare(name, initial);
      } else if (method.name == "lora") {
        for (const auto& [key, value] : expected["sub_configs"][name].items())
          compare(name + "." + key, value);
      }
    }
    EXPECT_EQ(seen.size(), method.fields.size()) << method.name << " has a key that PEFT has not";
  }
}

}  // namespace
}  // namespace temper::recipes
