#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/formats/row_encoder.h"
#include "data/io/atomic_file.h"
#include "data/readers/reader.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"
#include "launch/arguments.h"
#include "launch/command.h"
#include "launch/recipe_text.h"
#include "launch/source.h"
#include "recipes/diagnostic.h"
#include "recipes/objective_kinds.h"
#include "trainer/models/config.h"

namespace temper::launch {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kRowsLookedAt = 1000;

using ColumnNames = std::map<std::string, std::string>;

/// Names that data sets give to what temper calls prompt and completion, or text.
const std::vector<ColumnNames>& usual_columns() {
  static const std::vector<ColumnNames> table = {
      {},
      {{"prompt", "instruction"}, {"completion", "response"}},
      {{"prompt", "question"}, {"completion", "answer"}},
      {{"prompt", "question"}, {"completion", "response"}},
      {{"prompt", "input"}, {"completion", "output"}},
      {{"prompt", "query"}, {"completion", "response"}},
      {{"messages", "conversation"}},
      {{"text", "content"}},
  };
  return table;
}

/// Those to try for a task, in order. Of rows that are compared or continued only the prompt has
/// several names, and one that is there counts before the prompt that two completions imply.
std::vector<ColumnNames> columns_to_try(const std::string& task, const data::Row& row) {
  if (task == "sft") return usual_columns();
  std::vector<ColumnNames> names;
  if (!row.columns.contains("prompt")) {
    for (const char* prompt : {"instruction", "question", "problem", "query", "input"})
      names.push_back({{"prompt", prompt}});
  }
  names.emplace_back();
  return names;
}

/// The column in which data sets keep the right answer, or "".
std::string answer_column(const data::Row& row) {
  for (const char* name : {"answer", "solution", "ground_truth", "target"}) {
    if (row.columns.contains(name)) return name;
  }
  return "";
}

data::RowEncoder recognise(const std::string& task, const std::string& path, const data::Row& row,
                           const data::Tokenizer& tokenizer,
                           const std::optional<data::ChatTemplate>& chat_template,
                           ColumnNames& columns) {
  std::optional<UserError> refused;
  for (const ColumnNames& names : columns_to_try(task, row)) {
    const auto here = [&](const auto& name) { return row.columns.contains(name.second); };
    if (!std::all_of(names.begin(), names.end(), here)) continue;
    try {
      auto encoder =
          data::RowEncoder::make({.kind = task}, {.path = path, .weight = 1.0, .columns = names},
                                 row, tokenizer, chat_template);
      columns = names;
      return encoder;
    } catch (const UserError& refusal) {
      // What is said of the columns as they are.
      if (!refused || names.empty()) refused = refusal;
    }
  }
  throw UserError(refused->lines());
}

void look_at_data(RecipeDraft& draft, const fs::path& model, const data::Tokenizer& tokenizer) {
  const auto chat_template = data::ChatTemplate::load(model);
  std::optional<data::RowEncoder> encoder;
  const auto files = data::data_files(draft.data);
  const auto reader = data::open_reader(files.front());
  data::Row row;
  for (int64_t n = 0; n < kRowsLookedAt && reader->next(row); ++n) {
    if (!encoder) {
      encoder = recognise(draft.task, draft.data, row, tokenizer, chat_template, draft.columns);
      draft.answer = answer_column(row);
    }
    for (const data::Example& document : encoder->encode(row).documents)
      draft.longest = std::max(draft.longest, static_cast<int64_t>(document.ids.size()));
  }
  if (!encoder) throw UserError(files.front().string() + ": no rows");
  draft.format = encoder->format();
  draft.statement = encoder->statement();
}

/// Whether bfloat16 products are quicker than float32 ones here.
bool cpu_has_bf16() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("flags")) {
      return line.find("avx512_bf16") != std::string::npos ||
             line.find("amx_bf16") != std::string::npos;
    }
  }
  return false;
}

void refuse_other_tasks(const std::string& task) {
  const std::vector<std::string> tasks = recipes::trained_kinds();
  if (std::find(tasks.begin(), tasks.end(), task) != tasks.end()) return;
  const std::string nearest = nearest_name(task, tasks);
  throw UserError("temper init: --task " + task + ": this version of temper has " + join(tasks) + (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
}

}  // namespace

int init(const std::vector<std::string>& arguments) {
  ArgumentParser parser(
      "temper init --task TASK --model DIR --data FILE [-o recipe.toml]",
      "Writes a commented recipe that runs as it is. The format of the data is recognised from its "
      "rows.",
      "temper init --task sft --model models/llama --data data/alpaca.json -o alpaca.toml");
  parser.options().add_options()("task", po::value<std::string>()->default_value("sft"),
                                 ("an objective: " + join(recipes::trained_kinds())).c_str())(
      "model", po::value<std::string>(), "a model directory (required)")(
      "data", po::value<std::string>(),
      "rows to train on: .jsonl, .json, .csv, .parquet, .txt, a glob or a directory (required)")(
      "output,o", po::value<std::string>()->default_value("recipe.toml"), "the recipe to write");
  const auto given = parser.parse(arguments);
  if (!given) return kDone;
  const auto task = (*given)["task"].as<std::string>();
  refuse_other_tasks(task);
  for (const char* needed : {"model", "data"}) {
    if (given->count(needed) == 0)
      throw UserError(std::string("temper init: --") + needed + " is missing");
  }
  const fs::path file = (*given)["output"].as<std::string>();
  if (fs::exists(file)) throw UserError(file.string() + ": exists; give another name with -o");

  const Source source = resolve_source((*given)["model"].as<std::string>(), RunMeans::kExport);
  if (source.kind != Source::Kind::kModel) {
    throw UserError(source.weights.string() +
                    ": a checkpoint; make a model of it first: temper export " +
                    source.weights.string() + " DIR");
  }
  RecipeDraft draft{.task = task,
                    .name = file.stem().string(),
                    .file = file,
                    .model = source.model.string(),
                    .data = (*given)["data"].as<std::string>(),
                    .format = {},
                    .statement = {},
                    .columns = {},
                    .answer = {},
                    .context = trainer::load_config(source.model).max_position_embeddings,
                    .type = cpu_has_bf16() ? "bf16" : "fp32"};
  look_at_data(draft, source.model, source.load_tokenizer());
  data::write_file_atomically(file, recipe_text(draft));
  std::cout << draft.statement << "\nwrote " << file.string() << "; next: temper plan "
            << file.string() << "\n";
  return kDone;
}

}  // namespace temper::launch
