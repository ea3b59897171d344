// config.json of Llama and of those that differ from it by a few keys: Mistral, Qwen2, Qwen3.
#include <algorithm>
#include <utility>

#include "trainer/models/config.h"
#include "trainer/models/config_reader.h"
#include "trainer/models/registry.h"

namespace temper::trainer {
namespace {

using data::Json;

RopeConfig read_rope(const ConfigReader& top, const ModelConfig& config) {
  const Json none = Json::object();
  const Json* found = top.find("rope_scaling");
  if (found == nullptr || found->empty()) found = top.find("rope_parameters");
  const char* table =
      found != nullptr && found == top.find("rope_scaling") ? "rope_scaling" : "rope_parameters";
  if (found != nullptr && !found->is_object()) {
    top.fail(table, "must be an object");
    found = nullptr;
  }
  const ConfigReader rope(top.where() + ": " + table, found != nullptr ? *found : none,
                          top.findings());
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
std::vector<int64_t> read_windows(const ConfigReader& top, const ModelConfig& config) {
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

}  // namespace

void read_llama(const Architecture& row, const ConfigReader& top, ModelConfig& config) {
  config.vocab_size = top.integer("vocab_size", std::nullopt);
  config.hidden_size = top.integer("hidden_size", std::nullopt);
  config.intermediate_size = top.integer("intermediate_size", std::nullopt);
  config.num_hidden_layers = top.integer("num_hidden_layers", std::nullopt);
  config.num_attention_heads = top.integer("num_attention_heads", std::nullopt);
  const bool kv_is_null =
      config.json.contains("num_key_value_heads") && config.json["num_key_value_heads"].is_null();
  config.num_key_value_heads = top.integer(
      "num_key_value_heads", row.default_kv_heads == 0 || kv_is_null ? config.num_attention_heads
                                                                      : row.default_kv_heads);
  config.head_dim = top.integer(
      "head_dim", row.default_head_dim != 0
                      ? row.default_head_dim
                      : std::max<int64_t>(1, config.hidden_size / config.num_attention_heads));
  config.max_position_embeddings = top.integer("max_position_embeddings", row.default_positions);
  config.norm_eps = top.number("rms_norm_eps", 1e-6);
  config.tie_word_embeddings = top.boolean("tie_word_embeddings", false);
  const bool attention_bias = top.boolean("attention_bias", false);
  const bool is_llama = config.model_type == "llama";
  config.qk_norm = config.model_type == "qwen3";
  config.output_bias = attention_bias && (is_llama || config.qk_norm);
  config.attention_bias = config.output_bias || config.model_type == "qwen2";
  config.mlp_bias = is_llama && top.boolean("mlp_bias", false);

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
  if (top.findings().empty()) config.sliding_window = read_windows(top, config);
  if (top.findings().empty()) config.rope = read_rope(top, config);
}

}  // namespace temper::trainer
