// Pairs of which one completion is preferred. Data that says neither prompt nor label apart are
// brought into that form as TRL 1.16 does.
#include <string>

#include "data/formats/completions.h"
#include "recipes/diagnostic.h"

namespace temper::data {

TokenizedRow encode_preference(const FormatContext& context, const Columns& columns) {
  Prompted pair = read_prompted(context, columns, {"chosen", "rejected"});
  const bool has_prompt =
      pair.chat ? !pair.prompt_turns.empty() : columns.find("prompt") != nullptr;
  if (!has_prompt && context.kind != "reward") extract_prompt(pair);
  TokenizedRow row{.documents = tokenize_completions(context, columns, pair), .columns = {}};
  if (context.kind == "kto") {
    row.columns = std::string(kColumnsOfChosen) + "\n" + kColumnsOfRejected;
    return row;
  }
  const Json* margin = columns.find("margin");
  if (!margin || context.kind != "reward") return row;
  if (!margin->is_number()) {
    throw UserError(columns.name_in_file("margin") + " is of type " + margin->type_name() +
                    ": must be a number");
  }
  row.columns = Json{{"margin", *margin}}.dump();
  return row;
}

TokenizedRow encode_unpaired_preference(const FormatContext& context, const Columns& columns) {
  const Json* label = columns.find("label");
  const std::string name = columns.name_in_file("label");
  if (!label) throw UserError(name + " is missing or null: must be true or false");
  const bool is_one = *label == Json(true) || *label == Json(1);
  if (!is_one && *label != Json(false) && *label != Json(0))
    throw UserError(name + " = " + label->dump() + ": must be true or false, or 1 or 0");
  const Prompted prompted = read_answered(context, columns);
  return {.documents = tokenize_completions(context, columns, prompted),
          .columns = is_one ? kColumnsOfChosen : kColumnsOfRejected};
}

}  // namespace temper::data
