#include "trainer/models/config.h"

#include <utility>

#include "recipes/diagnostic.h"
#include "trainer/models/config_reader.h"
#include "trainer/models/quantization.h"
#include "trainer/models/registry.h"

namespace temper::trainer {
namespace {

using data::Json;

// transformers keeps no count, only the labels' names; without them there are two.
int64_t read_labels(const ConfigReader& top) {
  const Json* names = top.find("id2label");
  if (names == nullptr) return top.integer("num_labels", 2);
  if (names->is_object() && !names->empty()) return static_cast<int64_t>(names->size());
  top.fail("id2label", "must be an object with a name for each label");
  return 1;
}

}  // namespace

ModelConfig load_config(const std::filesystem::path& model_directory) {
  const std::filesystem::path path = model_directory / "config.json";
  ModelConfig config;
  config.json = data::read_json(path);
  const std::string where = path.string();
  if (!config.json.is_object()) throw UserError(where + ": must hold a JSON object");
  std::vector<std::string> findings;
  const ConfigReader top(where, config.json, findings);

  config.model_type = top.text("model_type", "");
  if (const Json* names = top.find("architectures"); names != nullptr) {
    if (names->is_array() && !names->empty() && (*names)[0].is_string()) {
      config.architecture = (*names)[0].get<std::string>();
    } else if (!names->is_array() || !names->empty()) {
      top.fail("architectures", "must be a list of names");
    }
  }
  const Architecture* row = find_architecture(config.architecture, config.model_type);
  if (row == nullptr) {
    std::vector<std::string> known;
    for (const Architecture& a : architectures()) known.push_back(a.name);
    const std::string found = config.architecture.empty() ? config.model_type : config.architecture;
    const std::string nearest = nearest_name(found, known);
    findings.push_back(where + ": architectures = \"" + found + "\": not supported; known: " +
                       join(known) + (nearest.empty() ? "" : " (did you mean " + nearest + "?)"));
    throw UserError(findings);
  }
  const bool scores = config.architecture == row->classifier;
  if (!scores) config.architecture = row->name;
  config.model_type = row->model_type;
  if (scores) config.num_labels = read_labels(top);

  config.initializer_range = top.number("initializer_range", 0.02);
  config.stored_dtype = top.text("dtype", top.text("torch_dtype", ""));
  row->read(*row, top, config);
  if (scores) config.tie_word_embeddings = false;
  if (findings.empty()) stored_quantization(config.json, where);
  if (!findings.empty()) throw UserError(findings);
  return config;
}

ModelConfig with_tokens(ModelConfig config, int64_t tokens, const std::vector<int32_t>& added) {
  config.added_rows += std::max<int64_t>(0, tokens - config.vocab_size);
  config.vocab_size = std::max(config.vocab_size, tokens);
  config.added_ids.assign(added.begin(), added.end());
  config.json["vocab_size"] = config.vocab_size;
  return config;
}

ModelConfig with_score_head(ModelConfig config, int64_t labels, std::optional<int32_t> pad_id) {
  const Architecture* row = find_architecture(config.architecture, config.model_type);
  TEMPER_CHECK(row != nullptr, "load_config lets only registered architectures through");
  config.architecture = row->classifier;
  config.num_labels = labels;
  config.new_head = true;
  config.tie_word_embeddings = false;
  Json names = Json::object(), ids = Json::object();
  for (int64_t i = 0; i < labels; ++i) {
    names[std::to_string(i)] = "LABEL_" + std::to_string(i);
    ids["LABEL_" + std::to_string(i)] = i;
  }
  config.json["architectures"] = {config.architecture};
  config.json["id2label"] = names;
  config.json["label2id"] = ids;
  config.json["pad_token_id"] = pad_id ? Json(*pad_id) : Json(nullptr);
  return config;
}

}  // namespace temper::trainer
