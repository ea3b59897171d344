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

const std::set<std::string> kOfTemper = {"ref_model", "zero_variance"};

// Of encoder-decoders alone.
bool is_ignored(const std::string& kind, const std::string& field) {
  return (kind == "orpo" || kind == "cpo") && field == "max_completion_length";
}

TEST(ObjectiveDefaults, EqualTrls) {
  const data::Json golden = data::read_json(golden_files("objective_defaults") / "defaults.json");
  for (const ObjectiveKind& kind : objective_kinds()) {
    const data::Json& config = golden.at(kind.name);
    EXPECT_EQ(kind.learning_rate, config.at("learning_rate").get<double>()) << kind.name;
    for (const Field& field : kind.fields) {
      if (kOfTemper.contains(field.key)) continue;
      ASSERT_TRUE(config.contains(field.key)) << kind.name << ": " << field.key;
      EXPECT_EQ(to_json(field.initial), config[field.key]) << kind.name << ": " << field.key;
    }
    for (const auto& [name, initial] : config.items()) {
      if (objectives_with(name).empty() || is_ignored(kind.name, name)) continue;
      EXPECT_NE(kind.field(name), nullptr) << kind.name << " lacks " << name;
    }
  }
}

}  // namespace
}  // namespace temper::recipes
