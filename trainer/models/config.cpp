#include "trainer/models/config.h"

#include <cmath>
#include <utility>

#include "recipes/diagnostic.h"
#include "trainer/models/quantization.h"
#include "trainer/models/registry.h"

namespace temper::trainer {
namespace {

using data::Json;

// Reads keys of one JSON object and collects what is wrong with them.
class Reader {
 public:
  Reader(std::string where, const Json& object, std::vector<std::string>& findings)
      : where_(std::move(where)), object_(object), findings_(findings) {}

  const Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  void fail(const char* key, const std::string& problem) const {
    const Json* value = find(key);
    findings_.push_back(where_ + ": " + key + (value != nullptr ? " = " + value->dump() : "") +
                        ": " + problem);
  }

  int64_t integer(const char* key, std::optional<int64_t> fallback) const {
    const Json* value = find(key);
    if (value == nullptr) {
      if (!fallback) fail(key, "is missing");
      return fallback.value_or(1);
    }
    if (!value->is_number_integer() || value->get<int64_t>() < 1 ||
        value->get<int64_t>() > (int64_t{1} << 40)) {
      fail(key, "must be a positive integer");
      return 1;
    }
    return value->get<int64_t>();
  }

  double number(const char* key, std::optional<double> fallback, double at_least = 0.0) const {
    const Json* value = find(key);
    if (value == nullptr) {
      if (!fallback) fail(key, "is missing");
      return fallback.value_or(1.0);
    }
    if (!value->is_number() || !(value->get<double>() >= at_least)) {
      fail(key, "must be a number of at least " + Json(at_least).dump());
      return 1.0;
    }
    return value->get<double>();
  }

  std::optional<double> optional_number(const char* key) const {
    if (find(key) == nullptr) return std::nullopt;
    return number(key, std::nullopt);
  }

  bool boolean(const char* key, bool fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (value->is_boolean()) return value->get<bool>();
    fail(key, "must be true or false");
    return fallback;
  }

  std::string text(const char* key, const std::string& fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (value->is_string()) return value->get<std::string>();
    fail(key, "must be a string");
    return fallback;
  }

  std::vector<double> numbers(const char* key, int64_t size) const {
    const Json* value = find(key);
    std::vector<double> result;
    if (value != nullptr && value->is_array()) {
      for (const Json& item : *value) {
        if (item.is_number()) result.push_back(item.get<double>());
      }
    }
    if (static_cast<int64_t>(result.size()) != size || result.size() != value->size()) {
      fail(key, "must be a list of head_dim / 2 = " + std::to_string(size) + " numbers");
      result.assign(size, 1.0);
    }
    return result;
  }

 private:
  std::string where_;
  const Json& object_;
  std::vector<std::string>& findings_;
};

RopeConfig read_rope(const std::string& where, const Json& json, const ModelConfig& config,
                     std::vector<std::string>& findings) {
  const Reader top(where, json, findings);
  const Json none = Json::object();
  const Json* found = top.find("rope_scaling");
  if (found == nullptr || found->empty()) found = top.find("rope_parameters");
  const char* table =
      found != nullptr && found == top.find("rope_scaling") ? "rope_scaling" : "rope_parameters";
  if (found != nullptr && !found->is_object()) {
    top.fail(table, "must be an object");
    found = nullptr;
  }
  const Reader rope(where + ": " + table, found != nullptr ? *found : none, findings);
  RopeConfig result;
  result.type = rope.text("rope_type", rope.text("type", "default"));
  result.theta = rope.number("rope_theta", top.number("rope_theta", 10000.0), 1.0);
  const double partial =
      rope.number("partial_rotary_factor", top.number("partial_rotary_factor", 1.0));
  if (partial != 1.0)
    rope.fail("partial_rotary_factor", "these architectures rotate whole heads (1.0)");
  if (rope.find("full_attention") != nullptr || rope.find("sliding_attention") != nullptr) {
    top.fail(table, "one for all layers is supported, not one a layer type");
    return result;
  }
  if (result.type == "default") return result;

  // Where transformers says the length before scaling stands: at the top, in the table, or it is
  // the present one.
  result.original_max_position_embeddings =
      top.integer("original_max_position_embeddings",
                  rope.integer("original_max_position_embeddings", config.max_position_embeddings));
  const double ratio = static_cast<double>(config.max_position_embeddings) /
                       static_cast<double>(result.original_max_position_embeddings);
  if (result.type == "linear" || result.type == "dynamic" || result.type == "llama3") {
    result.factor = rope.number("factor", std::nullopt, 1.0);
  } else {
    result.factor = rope.number("factor", ratio, 0.0);
    result.attention_factor = rope.optional_number("attention_factor");
  }
  if (result.type == "dynamic" && config.head_dim <= 2)
    rope.fail("rope_type", "needs a head_dim above 2");
  if (result.type == "llama3") {
    result.low_freq_factor = rope.number("low_freq_factor", std::nullopt);
    result.high_freq_factor = rope.number("high_freq_factor", std::nullopt);
    if (result.high_freq_factor <= result.low_freq_factor)
      rope.fail("high_freq_factor", "must be above low_freq_factor");
  } else if (result.type == "yarn") {
    const auto or_default = [&](const char* key, double fallback) {
      const double value = rope.number(key, fallback);
      return value == 0 ? fallback : value;
    };
    result.beta_fast = or_default("beta_fast", 32.0);
    result.beta_slow = or_default("beta_slow", 1.0);
    result.mscale = rope.optional_number("mscale");
    result.mscale_all_dim = rope.optional_number("mscale_all_dim");
    result.truncate = rope.boolean("truncate", true);
  } else if (result.type == "longrope") {
    result.short_factor = rope.numbers("short_factor", config.head_dim / 2);
    result.long_factor = rope.numbers("long_factor", config.head_dim / 2);
  } else if (result.type != "linear" && result.type != "dynamic") {
    rope.fail("rope_type", "unknown; known: default, linear, dynamic, yarn, longrope, llama3");
  }
  return result;
}

// Per layer: tokens a position may look back at, 0 for all.
std::vector<int64_t> read_windows(const Reader& top, const ModelConfig& config) {
  std::vector<int64_t> windows(config.num_hidden_layers, 0);
  if (config.model_type == "mistral") {
    // A key that is there and null means none; one that is absent means transformers' default.
    const bool is_null =
        config.json.contains("sliding_window") && config.json["sliding_window"].is_null();
    const int64_t window = is_null ? 0 : top.integer("sliding_window", 4096);
    windows.assign(windows.size(), window);
  } else if (config.model_type == "qwen2" || config.model_type == "qwen3") {
    const Json* types = top.find("layer_types");
    const bool use = top.boolean("use_sliding_window", false);
    const int64_t window =
        use && !(config.json.contains("sliding_window") && config.json["sliding_window"].is_null())
            ? top.integer("sliding_window", 4096)
            : 0;
    if (types != nullptr && (!types->is_array() || types->size() != windows.size())) {
      top.fail("layer_types", "must be a list of num_hidden_layers strings");
      return windows;
    }
    int64_t first = 28;
    if (const Json* value = top.find("max_window_layers"); value != nullptr) {
      if (value->is_number_integer() && value->get<int64_t>() >= 0) {
        first = value->get<int64_t>();
      } else {
        top.fail("max_window_layers", "must be an integer of at least 0");
      }
    }
    for (size_t i = 0; i < windows.size(); ++i) {
      bool sliding = window > 0 && static_cast<int64_t>(i) >= first;
      if (types != nullptr) {
        const std::string type = (*types)[i].is_string() ? (*types)[i].get<std::string>() : "";
        sliding = type == "sliding_attention";
        if (!sliding && type != "full_attention") {
          top.fail("layer_types", "each must be full_attention or sliding_attention");
          break;
        }
        if (sliding && window == 0) {
          top.fail("layer_types",
                   "has sliding_attention, but use_sliding_window and sliding_window do not give a "
                   "window");
          break;
        }
      }
      windows[i] = sliding ? window : 0;
    }
  }
  return windows;
}

constexpr const char* kScores = "ForSequenceClassification";

// transformers keeps no count, only the labels' names; without them there are two.
int64_t read_labels(const Reader& top) {
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
  const Reader top(where, config.json, findings);

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
  const bool scores = config.architecture.ends_with(kScores);
  if (!scores) config.architecture = row->name;
  config.model_type = row->model_type;
  if (scores) config.num_labels = read_labels(top);

  config.vocab_size = top.integer("vocab_size", std::nullopt);
  config.hidden_size = top.integer("hidden_size", std::nullopt);
  config.intermediate_size = top.integer("intermediate_size", std::nullopt);
  config.num_hidden_layers = top.integer("num_hidden_layers", std::nullopt);
  config.num_attention_heads = top.integer("num_attention_heads", std::nullopt);
  const bool kv_is_null =
      config.json.contains("num_key_value_heads") && config.json["num_key_value_heads"].is_null();
  config.num_key_value_heads = top.integer(
      "num_key_value_heads", row->default_kv_heads == 0 || kv_is_null ? config.num_attention_heads
                                                                      : row->default_kv_heads);
  config.head_dim = top.integer(
      "head_dim", row->default_head_dim != 0
                      ? row->default_head_dim
                      : std::max<int64_t>(1, config.hidden_size / config.num_attention_heads));
  config.max_position_embeddings = top.integer("max_position_embeddings", row->default_positions);
  config.rms_norm_eps = top.number("rms_norm_eps", 1e-6);
  config.initializer_range = top.number("initializer_range", 0.02);
  config.tie_word_embeddings = top.boolean("tie_word_embeddings", false) && !scores;
  const bool attention_bias = top.boolean("attention_bias", false);
  const bool is_llama = config.model_type == "llama";
  config.qk_norm = config.model_type == "qwen3";
  config.output_bias = attention_bias && (is_llama || config.qk_norm);
  config.attention_bias = config.output_bias || config.model_type == "qwen2";
  config.mlp_bias = is_llama && top.boolean("mlp_bias", false);
  config.stored_dtype = top.text("dtype", top.text("torch_dtype", ""));

  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    top.fail("num_key_value_heads",
             "must divide num_attention_heads = " + std::to_string(config.num_attention_heads));
  }
  if (is_llama && top.find("hidden_size") != nullptr &&
      config.hidden_size % config.num_attention_heads != 0) {
    top.fail("num_attention_heads",
             "must divide hidden_size = " + std::to_string(config.hidden_size));
  }
  if (config.head_dim % 2 != 0) top.fail("head_dim", "must be even (rotary embedding)");
  if (top.text("hidden_act", "silu") != "silu") top.fail("hidden_act", "only silu is supported");
  if (top.number("attention_dropout", 0.0) != 0.0)
    top.fail("attention_dropout", "only 0.0 is supported");
  if (findings.empty()) stored_quantization(config.json, where);
  if (findings.empty()) config.sliding_window = read_windows(top, config);
  if (findings.empty()) config.rope = read_rope(where, config.json, config, findings);
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
  const std::string base = config.architecture.substr(0, config.architecture.find("For"));
  config.architecture = base + kScores;
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
