#include "launch/recipe_text.h"

#include <algorithm>

#include "data/io/json.h"
#include "recipes/objective_kinds.h"

namespace temper::launch {

namespace {

/// A TOML basic string: JSON's escapes are a subset of TOML's.
std::string quoted(const std::string& text) { return data::Json(text).dump(); }

bool samples(const RecipeDraft& draft) { return recipes::find_objective_kind(draft.task)->samples; }

/// A power of two that holds the rows looked at, within the model's context. Text is cut into
/// pieces anyway; of prompts a half of the context is left for completions.
int64_t fitting_length(const RecipeDraft& draft) {
  const int64_t room = samples(draft) ? draft.context / 2 : draft.context;
  if (draft.format == "text") return std::min<int64_t>(1024, room);
  int64_t length = 128;
  while (length < draft.longest && length < 8192) length *= 2;
  return std::min(length, room);
}

std::string columns_line(const RecipeDraft& draft) {
  const bool pairs = draft.format == "preference";
  if (draft.columns.empty()) {
    return std::string("# columns = { prompt = \"question\", ") +
           (pairs ? "chosen = \"good\"" : "completion = \"answer\"") +
           " }   # where the file's names differ\n";
  }
  std::string line;
  for (const auto& [ours, theirs] : draft.columns)
    line += (line.empty() ? "" : ", ") + ours + " = " + quoted(theirs);
  return "columns = { " + line + " }\n";
}

constexpr const char* kSft = "kind = \"sft\"\n";
constexpr const char* kDpo = R"(kind      = "dpo"
beta      = 0.1             # how strongly the policy is held to the reference, its own start
loss_type = "sigmoid"       # or hinge, ipo, robust, apo_zero, ...; a list adds them up
# precompute_ref_log_probs = true   # once, before training: the reference then takes no memory
)";
constexpr const char* kKto = R"(kind = "kto"
beta = 0.1                  # how strongly the policy is held to the reference, its own start
desirable_weight   = 1.0    # balance these two where good and bad rows are not equally many
undesirable_weight = 1.0
)";
constexpr const char* kOrpo = R"(kind = "orpo"
beta = 0.1                  # weight of the preference beside the cross-entropy
)";
constexpr const char* kCpo = R"(kind      = "cpo"
loss_type = "sigmoid"       # "simpo" with cpo_alpha = 0 is SimPO
beta      = 0.1
cpo_alpha = 1.0             # weight of the chosen completions' cross-entropy
)";
constexpr const char* kReward = R"(kind = "reward"             # a head that gives a text one number
# center_rewards_coefficient = 0.01   # keeps the rewards around 0
)";

std::string rollouts(const RecipeDraft& draft, int64_t max_length) {
  const bool grpo = draft.task == "grpo";
  const int64_t completion = std::clamp<int64_t>(draft.context - max_length, 1, 512);
  std::string text = "kind = " + quoted(draft.task) + "\n";
  text += grpo ? "num_generations = 8         " : "num_generations = 4         ";
  text += "# completions of a prompt, compared with each other\n";
  text += "max_completion_length = " + std::to_string(completion) + " # tokens\n";
  text += grpo
              ? "beta = 0.0                  # above 0: held to the model at the start\n"
              : "beta = 0.05                 # how strongly it is held to the model at the start\n";
  text += "[[objective.rewards]]       # what scores a completion; several are added up\n";
  if (draft.answer.empty()) {
    text +=
        "kind = \"repetition\"         # put your own here: accuracy, regex, length, program "
        "(docs/recipe.md)\n";
  } else {
    text += "kind   = \"accuracy\"         # 1 where the completion's answer is the row's\n";
    text += "answer = " + quoted(draft.answer) + "           # the column with it\n";
  }
  return text;
}

std::string objective_text(const RecipeDraft& draft, int64_t max_length) {
  if (draft.task == "dpo") return kDpo;
  if (draft.task == "kto") return kKto;
  if (draft.task == "orpo") return kOrpo;
  if (draft.task == "cpo") return kCpo;
  if (draft.task == "reward") return kReward;
  return samples(draft) ? rollouts(draft, max_length) : kSft;
}

std::string optimizer_text(const RecipeDraft& draft) {
  if (draft.task == "sft") return "lr = 2e-5                   # full fine-tuning: 5e-6 to 5e-5\n";
  if (draft.task == "reward") return "lr = 1e-4                   # full fine-tuning: 1e-5 to 1e-4\n";
  return "lr = 1e-6                   # full fine-tuning: 5e-7 to 5e-6; with [peft] 1e-5 to 2e-4\n";
}

std::string batch_text(const RecipeDraft& draft) {
  const std::string rows = samples(draft)        ? "completions"
                           : draft.task == "sft" ? "sequences"
                           : draft.task == "kto" ? "rows"
                                                 : "pairs";
  return "global = 16                 # " + rows +
         " a step, over all ranks\nmicro  = 2                  # " + rows +
         " a rank computes at once: more is quicker and takes more memory\n";
}

}  // namespace

std::string recipe_text(const RecipeDraft& draft) {
  const int64_t max_length = fitting_length(draft);
  std::string text = "# " + recipes::find_objective_kind(draft.task)->meaning + "\n";
  text +=
      "# Written by temper init; every key that is not here has its default (docs/recipe.md).\n#\n";
  text += "#   check   temper plan " + draft.file.string() + "\n";
  text += "#   train   temper train " + draft.file.string() +
          "        (or: mpirun -n 2 temper train ...)\n\n";
  text += "[run]\nname = " + quoted(draft.name) +
          "          # everything is written to runs/<name>\n\n";
  text += "[model]\npath  = " + quoted(draft.model) + "\n";
  text += "dtype = \"" + draft.type + "\"             # of the weights in memory\n\n";
  text += "[data]\n# " + draft.statement + "\n";
  text += "format     = " + quoted(draft.format) + "\n";
  text += "max_length = " + std::to_string(max_length) + "           # tokens" +
          (samples(draft) ? " of a prompt" : "") + "; the longest of the first rows has " +
          std::to_string(draft.longest) + "\n";
  if (draft.format != "text" && draft.longest > max_length) {
    text += "on_long_row = \"drop\"        # cut, a row may be left without anything to learn\n";
  }
  text += "[[data.train]]\npath = " + quoted(draft.data) + "\n" + columns_line(draft);
  text +=
      "# [[data.eval]]              # rows kept apart are evaluated while training\n# path = "
      "\"eval.jsonl\"\n\n";
  text += "[objective]\n" + objective_text(draft, max_length) + "\n";
  text += "[optimizer]\n" + optimizer_text(draft) + "\n";
  text +=
      "[schedule]\nkind   = \"cosine\"\nwarmup = 0.03               # a fraction of all steps\n\n";
  text += "[batch]\n" + batch_text(draft) + "\n";
  text += "[train]\nepochs    = 1\nprecision = \"" + draft.type + "\"\n\n";
  text += "[checkpoint]\nevery = 200                 # steps\n";
  return text;
}

}  // namespace temper::launch
