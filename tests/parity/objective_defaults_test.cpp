// The keys of [objective] and their defaults against the configs of TRL 1.16.0
// (make_objective_defaults.py): every key is a field with the same default, but for Temper's own,
// and a field that is a key of one kind is one of every kind that has it.
#include <set>

#include <gtest/gtest.h>

#include "data/io/json.h"
#include "recipes/objective_kinds.h"
#include "tests/parity/golden.h"
#include "trainer/adapters/adapter_fields.h"

namespace temper::recipes {
namespace {

using trainer::to_json;

const std::set<std::string> kOfTemper = {"ref_model", "zero_variance", "teacher"};

// Not in TRL 1.16.0.
const std::set<std::string> kWithoutConfig = {"ppo"};

// The field that a key of Temper is in that config; "": it has none.
std::string name_in_trl(const std::string& kind, const std::string& key) {
  if (kOfTemper.contains(key)) return "";
  if ((kind == "online_dpo" || kind == "gkd") && key == "max_completion_length") {
    return "max_new_tokens";
  }
  // TRL's trainer is on-policy alone.
  if (kind == "distill" && (key == "lmbda" || key == "seq_kd")) return "";
  return key;
}

// Of encoder-decoders alone; what GKDConfig inherits from SFTConfig and its trainer never reads.
bool is_ignored(const std::string& kind, const std::string& field) {
  return ((kind == "orpo" || kind == "cpo") && field == "max_completion_length") ||
         (kind == "gkd" && field == "loss_type");
}

TEST(ObjectiveDefaults, EqualTrls) {
  const data::Json golden = data::read_json(golden_files("objective_defaults") / "defaults.json");
  for (const ObjectiveKind& kind : objective_kinds()) {
    if (kind.rows_only || kWithoutConfig.contains(kind.name)) continue;
    const data::Json& config = golden.at(kind.name);
    // All that learns from preferences or rewards begins with one learning rate here.
    if (kind.name != "online_dpo") {
      EXPECT_EQ(kind.learning_rate, config.at("learning_rate").get<double>()) << kind.name;
    }
    for (const Field& field : kind.fields) {
      const std::string name = name_in_trl(kind.name, field.key);
      if (name.empty()) continue;
      ASSERT_TRUE(config.contains(name)) << kind.name << ": " << name;
      // OnlineDPO's beta may be a list, one an epoch.
      const bool listed = kind.name == "online_dpo" && config[name].is_array();
      EXPECT_EQ(to_json(field.initial), listed ? config[name].at(0) : config[name])
          << kind.name << ": " << name;
    }
    for (const auto& [name, initial] : config.items()) {
      if (objectives_with(name).empty() || is_ignored(kind.name, name)) continue;
      EXPECT_NE(kind.field(name), nullptr) << kind.name << " lacks " << name;
    }
  }
}

}  // namespace
}  // namespace temper::recipes
