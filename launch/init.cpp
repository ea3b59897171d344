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
#include "data/io/json.h"
#include "data/readers/reader.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"
#include "launch/arguments.h"
#include "launch/command.h"
#include "launch/source.h"
#include "recipes/diagnostic.h"
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
      {{"prompt", "instruction"}, {"completion", "output"}},
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

/// What the first rows of the data say.
struct DataFound {
  std::string format;
  std::string statement;
  ColumnNames columns;
  int64_t longest = 0;  // tokens, of the rows looked at
};

data::RowEncoder recognise(const std::string& path, const data::Row& row,
                           const data::Tokenizer& tokenizer,
                           const std::optional<data::ChatTemplate>& chat_template,
                           ColumnNames& columns) {
  std::optional<UserError> first_refusal;
  for (const ColumnNames& names : usual_columns()) {
    const auto here = [&](const auto& name) { return row.columns.contains(name.second); };
    if (!std::all_of(names.begin(), names.end(), here)) continue;
    try {
      auto encoder = data::RowEncoder::make({}, {.path = path, .weight = 1.0, .columns = names},
                                            row, tokenizer, chat_template);
      columns = names;
      return encoder;
    } catch (const UserError& refusal) {
      if (!first_refusal) first_refusal = refusal;
    }
  }
  throw UserError(first_refusal->lines());
}

DataFound look_at_data(const std::string& path, const fs::path& model,
                       const data::Tokenizer& tokenizer) {
  const auto chat_template = data::ChatTemplate::load(model);
  DataFound found;
  std::optional<data::RowEncoder> encoder;
  const auto files = data::data_files(path);
  const auto reader = data::open_reader(files.front());
  data::Row row;
  for (int64_t n = 0; n < kRowsLookedAt && reader->next(row); ++n) {
    if (!encoder) encoder = recognise(path, row, tokenizer, chat_template, found.columns);
    found.longest = std::max(found.longest, static_cast<int64_t>(encoder->encode(row).ids.size()));
  }
  if (!encoder) throw UserError(files.front().string() + ": no rows");
  found.format = encoder->format();
  found.statement = encoder->statement();
  return found;
}

/// A power of two that holds the rows looked at, within the model's context. Text is cut into
/// pieces anyway.
int64_t fitting_length(const DataFound& found, int64_t context) {
  if (found.format == "text") return std::min<int64_t>(1024, context);
  int64_t length = 128;
  while (length < found.longest && length < 8192) length *= 2;
  return std::min(length, context);
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

/// A TOML basic string: JSON's escapes are a subset of TOML's.
std::string quoted(const std::string& text) { return data::Json(text).dump(); }

std::string columns_line(const ColumnNames& columns) {
  if (columns.empty())
    return "# columns = { prompt = \"question\", completion = \"answer\" }   # where the file's "
           "names differ\n";
  std::string line;
  for (const auto& [ours, theirs] : columns)
    line += (line.empty() ? "" : ", ") + ours + " = " + quoted(theirs);
  return "columns = { " + line + " }\n";
}

std::string recipe_text(const std::string& name, const std::string& model, const std::string& data,
                        const DataFound& found, int64_t max_length, const fs::path& file) {
  const std::string type = cpu_has_bf16() ? "bf16" : "fp32";
  std::string text;
  text +=
      "# Supervised fine-tuning, written by temper init; every key that is not here has its "
      "default (docs/recipe.md).\n#\n";
  text += "#   check   temper plan " + file.string() + "\n";
  text += "#   train   temper train " + file.string() +
          "        (or: mpirun -n 2 temper train ...)\n\n";
  text += "[run]\nname = " + quoted(name) + "          # everything is written to runs/<name>\n\n";
  text += "[model]\npath  = " + quoted(model) + "\n";
  text += "dtype = \"" + type + "\"             # of the weights in memory\n\n";
  text += "[data]\n# " + found.statement + "\n";
  text += "format     = " + quoted(found.format) + "\n";
  text += "max_length = " + std::to_string(max_length) +
          "           # tokens; the longest of the first rows has " +
          std::to_string(found.longest) + "\n";
  if (found.format != "text" && found.longest > max_length) {
    text += "on_long_row = \"drop\"        # cut, a row may be left without anything to learn\n";
  }
  text += "[[data.train]]\npath = " + quoted(data) + "\n" + columns_line(found.columns);
  text +=
      "# [[data.eval]]              # rows kept apart give eval_loss while training\n# path = "
      "\"eval.jsonl\"\n\n";
  text += "[objective]\nkind = \"sft\"\n\n";
  text += "[optimizer]\nlr = 2e-5                   # full fine-tuning: 5e-6 to 5e-5\n\n";
  text +=
      "[schedule]\nkind   = \"cosine\"\nwarmup = 0.03               # a fraction of all steps\n\n";
  text += "[batch]\nglobal = 16                 # sequences a step, over all ranks\n";
  text +=
      "micro  = 2                  # sequences a rank computes at once: more is quicker and takes "
      "more memory\n\n";
  text += "[train]\nepochs    = 1\nprecision = \"" + type + "\"\n\n";
  text += "[checkpoint]\nevery = 200                 # steps\n";
  return text;
}

void refuse_other_tasks(const std::string& task) {
  if (task == "sft") return;
  const std::string nearest = nearest_name(task, {"sft"});
  throw UserError("temper init: --task " + task + ": this version of temper has sft" +
                  (nearest.empty() ? "" : "; did you mean sft?"));
}

}  // namespace

int init(const std::vector<std::string>& arguments) {
  ArgumentParser parser(
      "temper init --task sft --model DIR --data FILE [-o recipe.toml]",
      "Writes a commented recipe that runs as it is. The format of the data is recognised from its "
      "rows.",
      "temper init --task sft --model models/llama --data data/alpaca.json -o alpaca.toml");
  parser.options().add_options()("task", po::value<std::string>()->default_value("sft"),
                                 "an objective: sft")("model", po::value<std::string>(),
                                                      "a model directory (required)")(
      "data", po::value<std::string>(),
      "rows to train on: .jsonl, .json, .csv, .parquet, .txt, a glob or a directory (required)")(
      "output,o", po::value<std::string>()->default_value("recipe.toml"), "the recipe to write");
  const auto given = parser.parse(arguments);
  if (!given) return kDone;
  refuse_other_tasks((*given)["task"].as<std::string>());
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
  const auto data = (*given)["data"].as<std::string>();
  const auto config = trainer::load_config(source.model);
  const DataFound found = look_at_data(data, source.model, source.load_tokenizer());
  data::write_file_atomically(
      file, recipe_text(file.stem().string(), source.model.string(), data, found,
                        fitting_length(found, config.max_position_embeddings), file));
  std::cout << found.statement << "\nwrote " << file.string() << "; next: temper plan "
            << file.string() << "\n";
  return kDone;
}

}  // namespace temper::launch
