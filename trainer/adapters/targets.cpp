#include "trainer/adapters/targets.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <utility>

#include "recipes/diagnostic.h"
#include "recipes/name_pattern.h"
#include "trainer/models/model.h"

namespace temper::trainer {

namespace {

using recipes::NamePattern;
using recipes::NamesOrPattern;
using recipes::Peft;
using Names = std::vector<std::string>;

struct DefaultTargets {
  const char* methods;
  const char* model_types;
  const char* modules;
};

// peft/utils/constants.py of PEFT 0.21.2, for the architectures that Temper has.
constexpr DefaultTargets kDefaultTargets[] = {
    {"lora loha lokr vera oft boft", "llama mistral qwen2 qwen3", "q_proj v_proj"},
    {"lora adalora vera", "gpt2", "c_attn"},
    {"adalora", "llama qwen2 qwen3", "q_proj v_proj"},
    {"ia3", "llama mistral", "k_proj v_proj down_proj"},
    {"ia3", "qwen2 qwen3", "q_proj v_proj down_proj"},
    {"ia3", "gpt2", "c_attn mlp.c_proj"},
    {"ln_tuning", "llama mistral", "input_layernorm post_attention_layernorm norm"},
    {"ln_tuning", "qwen2 qwen3", "post_attention_layernorm"},
    {"ln_tuning", "gpt2", "ln_1 ln_2 ln_f"},
};
constexpr DefaultTargets kDefaultFeedforward[] = {{"ia3", "llama mistral qwen2 qwen3", "down_proj"},
                                                  {"ia3", "gpt2", "mlp.c_proj"}};

constexpr const char* kHead = "lm_head";
constexpr const char* kWeight = ".weight";

// From here on PEFT shortens a list of names.
constexpr size_t kManyTargets = 20;

Names words(const char* text) {
  std::istringstream stream(text);
  Names result;
  for (std::string word; stream >> word;) result.push_back(word);
  return result;
}

bool holds(const char* text, const std::string& word) {
  const Names all = words(text);
  return std::find(all.begin(), all.end(), word) != all.end();
}

bool has_modules(const Peft& peft) {
  return peft.method != "prompt_tuning" && peft.method != "p_tuning" &&
         peft.method != "prefix_tuning";
}

bool is_all_linear(const NamesOrPattern& choice) {
  const auto* text = std::get_if<std::string>(&choice);
  if (text == nullptr) return false;
  std::string lower = *text;
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower == "all-linear";
}

bool is_or_ends_with(const std::string& module, const std::string& name) {
  return module == name || module.ends_with("." + name);
}

// A name or a pattern, ready to be asked often.
class Choice {
 public:
  Choice(const NamesOrPattern& choice, const std::string& where) {
    if (const auto* pattern = std::get_if<std::string>(&choice)) {
      pattern_.emplace(*pattern, where);
    } else {
      names_ = std::get<Names>(choice);
    }
  }
  bool matches(const std::string& module) const {
    if (pattern_) return pattern_->matches(module);
    return std::any_of(names_.begin(), names_.end(),
                       [&](const std::string& name) { return is_or_ends_with(module, name); });
  }
  bool names_whole(const std::string& module) const {
    return std::find(names_.begin(), names_.end(), module) != names_.end();
  }
  bool is_pattern() const { return pattern_.has_value(); }

 private:
  std::optional<NamePattern> pattern_;
  Names names_;
};

// layers_to_transform and layers_pattern.
class Layers {
 public:
  explicit Layers(const Peft& peft) {
    if (!peft.layers_to_transform) return;
    if (const auto* one = std::get_if<int64_t>(&*peft.layers_to_transform)) {
      chosen_ = {*one};
    } else {
      chosen_ = std::get<std::vector<int64_t>>(*peft.layers_to_transform);
    }
    Names patterns;
    if (peft.layers_pattern) {
      const auto* one = std::get_if<std::string>(&*peft.layers_pattern);
      patterns = one ? Names{*one} : std::get<Names>(*peft.layers_pattern);
      std::erase(patterns, "");
    }
    if (patterns.empty()) {
      // The first numbered part, not the last: experts are numbered too.
      patterns_.emplace_back(R"(.*?\.[^.]*\.(?P<idx>\d+)\.)", "peft.layers_pattern");
    }
    for (const std::string& pattern : patterns) {
      patterns_.emplace_back(R"((?:^|.*?\.))" + pattern + R"(\.(?P<idx>\d+)\.)",
                             "peft.layers_pattern");
    }
  }
  bool any() const { return !chosen_.empty(); }
  const std::vector<int64_t>& chosen() const { return chosen_; }
  std::optional<int64_t> layer_of(const std::string& module) const {
    for (const NamePattern& pattern : patterns_) {
      if (const auto digits = pattern.idx(module)) return std::stoll(*digits);
    }
    return std::nullopt;
  }
  bool holds(const std::string& module) const {
    const std::optional<int64_t> layer = layer_of(module);
    return layer && std::find(chosen_.begin(), chosen_.end(), *layer) != chosen_.end();
  }

 private:
  std::vector<int64_t> chosen_;
  std::vector<NamePattern> patterns_;
};

// The last parts of a name, as many as `like` has: what a user may have meant by it.
std::string ending_like(const std::string& module, const std::string& like) {
  auto dots = std::count(like.begin(), like.end(), '.');
  size_t at = module.size();
  for (; at > 0; --at) {
    if (module[at - 1] == '.' && dots-- == 0) break;
  }
  return module.substr(at);
}

// "did you mean 'q_proj'?", else what there is. `suffix`: "" of modules, kWeight of their weights.
std::string hint(const std::string& name, const std::vector<TargetModule>& modules,
                 const std::string& suffix = "") {
  const std::string like =
      name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : name;
  std::set<std::string> endings, last;
  for (const TargetModule& module : modules) {
    if (!suffix.empty() && !module.linear) continue;
    endings.insert(ending_like(module.name, like));
    last.insert(ending_like(module.name, "") + suffix);
  }
  const Names candidates(endings.begin(), endings.end());
  const std::string nearest = nearest_name(like, candidates);
  if (!nearest.empty()) return "did you mean '" + nearest + suffix + "'?";
  return std::string("the model's ") + (suffix.empty() ? "modules" : "weights of linear layers") +
         " are " + join(Names(last.begin(), last.end()));
}

// "model.layers.3.mlp.up_proj": up_proj, mlp.up_proj, 3.mlp.up_proj, ...
Names endings_of(const std::string& name) {
  Names result;
  for (size_t at = name.size(); at > 0; --at) {
    if (name[at - 1] == '.') result.push_back(name.substr(at));
  }
  result.push_back(name);
  return result;
}

// Every name needs an ending that no module outside `names` has, the shortest one; those that
// another's ending covers already need none.
Names shortest_endings(const Names& names, const Names& others) {
  std::set<std::string> taken;
  for (const std::string& other : others) {
    for (std::string& ending : endings_of(other)) taken.insert(std::move(ending));
  }
  std::vector<std::pair<Names, std::string>> sorted;
  for (const std::string& name : names) sorted.emplace_back(endings_of(name), name);
  std::sort(sorted.begin(), sorted.end());
  Names required;
  for (const auto& [endings, name] : sorted) {
    const auto covered = [&, &whole = name] {
      return std::any_of(required.begin(), required.end(),
                         [&](const std::string& ending) { return whole.ends_with("." + ending); });
    };
    for (const std::string& ending : endings) {
      if (taken.contains(ending)) continue;
      if (!covered()) required.push_back(ending);
      break;
    }
  }
  return required;
}

Names linear_modules(const std::vector<TargetModule>& modules) {
  Names names;
  for (const TargetModule& module : modules) {
    if (module.linear && !module.output_head) names.push_back(module.name);
  }
  return names;
}

// `suffix` as in hint().
void find_unmatched(const std::optional<NamesOrPattern>& choice, const std::string& key,
                    const std::vector<TargetModule>& modules, Names& findings,
                    const std::string& suffix = "") {
  const auto* names = choice ? std::get_if<Names>(&*choice) : nullptr;
  if (names == nullptr) return;
  for (const std::string& name : *names) {
    if (std::none_of(modules.begin(), modules.end(), [&](const TargetModule& module) {
          return is_or_ends_with(module.name + suffix, name);
        })) {
      findings.push_back(key + ": '" + name + "' is no " + (suffix.empty() ? "module" : "weight") +
                         " of this model: " + hint(name, modules, suffix));
    }
  }
}

std::string text_of(const NamesOrPattern& choice) {
  const auto* pattern = std::get_if<std::string>(&choice);
  return pattern ? "'" + *pattern + "'" : "[" + join(std::get<Names>(choice)) + "]";
}

// The key's characters one by one at the end of the name, where it has no other metacharacter than
// the dot: EVA writes a key for every module, and compiling each for each would take long.
std::optional<bool> matches_plainly(const std::string& key, const std::string& module) {
  const bool plain = std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '.';
  });
  if (!plain) return std::nullopt;
  if (key.size() > module.size()) return false;
  const size_t before = module.size() - key.size();
  if (before > 0 && module[before - 1] != '.') return false;
  for (size_t i = 0; i < key.size(); ++i) {
    if (key[i] != '.' && key[i] != module[before + i]) return false;
  }
  return true;
}

bool names_weight(const Peft& peft, const std::string& module) {
  if (!peft.target_parameters) return false;
  const Names& names = *peft.target_parameters;
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return is_or_ends_with(module + kWeight, name);
  });
}

// What target_parameters names: a matrix that nothing else trains.
void check_weight(const TargetModule& module, bool as_module, bool is_saved) {
  const std::string key = "peft.target_parameters: " + module.name + kWeight;
  if (is_saved) {
    throw UserError(key + " is trained as a whole already (peft.modules_to_save): leave one of "
                          "them out");
  }
  if (as_module) {
    throw UserError(key + " is adapted with its module already (peft.target_modules, by default "
                          "PEFT's choice): leave one of them out, as peft.target_modules = [] does");
  }
  if (!module.linear) {
    throw UserError(key + " is not the weight of a linear layer: name its module in "
                          "peft.target_modules (an embedding) or peft.modules_to_save");
  }
}

template <class Number>
Number first_match(const std::map<std::string, Number>& patterns, const std::string& module,
                   Number otherwise) {
  for (const auto& [key, value] : patterns) {
    const std::optional<bool> plainly = matches_plainly(key, module);
    if (plainly ? *plainly
                : NamePattern("(.*\\.)?(" + key + ")", "peft.rank_pattern or alpha_pattern")
                      .matches(module)) {
      return value;
    }
  }
  return otherwise;
}

}  // namespace

void set_default_targets(Peft& peft, const std::string& model_type) {
  if (peft.method.empty() || !has_modules(peft)) return;
  const auto missing = [&](const std::string& key) {
    return UserError("peft." + key + ": PEFT has no default for method " + peft.method +
                     " and model type '" + model_type + "': set peft." + key);
  };
  const auto default_of = [&](std::span<const DefaultTargets> rows) -> std::optional<Names> {
    for (const DefaultTargets& row : rows) {
      if (holds(row.methods, peft.method) && holds(row.model_types, model_type))
        return words(row.modules);
    }
    return std::nullopt;
  };
  if (!peft.target_modules) {
    const std::optional<Names> names = default_of(kDefaultTargets);
    if (!names) throw missing("target_modules");
    peft.target_modules = *names;
  }
  if (peft.method == "ia3" && !peft.feedforward_modules) {
    const std::optional<Names> names = default_of(kDefaultFeedforward);
    if (!names) throw missing("feedforward_modules");
    peft.feedforward_modules = *names;
  }
}

Names find_targets(const Peft& given, const std::string& model_type,
                   const std::vector<TargetModule>& modules, bool strict) {
  Peft peft = given;
  set_default_targets(peft, model_type);
  if (!peft.target_modules) return {};
  const NamesOrPattern& targets = *peft.target_modules;
  Names findings;
  if (strict) {
    find_unmatched(given.target_modules, "peft.target_modules", modules, findings);
    find_unmatched(given.exclude_modules, "peft.exclude_modules", modules, findings);
    find_unmatched(given.target_parameters, "peft.target_parameters", modules, findings, kWeight);
  }
  const Layers layers(peft);
  if (std::holds_alternative<std::string>(targets) && layers.any()) {
    findings.push_back("peft.layers_to_transform: needs peft.target_modules to be a list, it is " +
                       text_of(targets));
  }
  for (const int64_t layer : layers.chosen()) {
    if (strict && std::none_of(modules.begin(), modules.end(), [&](const TargetModule& module) {
          return layers.layer_of(module.name) == layer;
        })) {
      findings.push_back("peft.layers_to_transform: the model has no layer " +
                         std::to_string(layer));
    }
  }
  if (!findings.empty()) throw UserError(findings);

  const Choice wanted(is_all_linear(targets) ? NamesOrPattern(linear_modules(modules)) : targets,
                      "peft.target_modules");
  std::optional<Choice> excluded;
  if (peft.exclude_modules) excluded.emplace(*peft.exclude_modules, "peft.exclude_modules");
  // What is saved whole is trained whole: no adapter sits on or below it.
  std::vector<NamePattern> saved;
  for (const std::string& name : peft.modules_to_save.value_or(Names())) {
    saved.emplace_back("(^|.*\\.)" + name + "($|\\..*)", "peft.modules_to_save");
  }
  Names chosen;
  bool any_excluded = false, any_module = false;
  for (const TargetModule& module : modules) {
    const bool is_saved =
        std::any_of(saved.begin(), saved.end(),
                    [&](const NamePattern& pattern) { return pattern.matches(module.name); });
    const bool is_excluded = is_saved || (excluded && excluded->matches(module.name));
    const bool whole = wanted.names_whole(module.name);
    const bool as_module =
        !is_excluded &&
        (whole || (wanted.matches(module.name) && (!layers.any() || layers.holds(module.name))));
    any_excluded = any_excluded || (is_excluded && wanted.matches(module.name));
    any_module = any_module || as_module;
    const bool as_weight = names_weight(peft, module.name);
    if (as_weight) check_weight(module, as_module, is_saved);
    if (as_module || as_weight) chosen.push_back(module.name);
  }
  const bool weights_alone = targets == NamesOrPattern(Names{}) && peft.target_parameters;
  if (chosen.empty() && weights_alone) {
    throw UserError("peft.target_parameters = " + text_of(*peft.target_parameters) +
                    ": matches no weight of this model");
  }
  if (chosen.empty() || (strict && !any_module && !weights_alone)) {
    const std::string what = "peft.target_modules = " + text_of(targets) + ": ";
    if (any_excluded) {
      throw UserError(what + "all that it matches is excluded (peft.exclude_modules, " +
                      "peft.modules_to_save)");
    }
    const auto* pattern = std::get_if<std::string>(&targets);
    const Names names = pattern ? Names{*pattern} : std::get<Names>(targets);
    throw UserError(
        what + "matches no module" + (layers.any() ? " in peft.layers_to_transform" : "") + ": " +
        hint(names.empty() ? "" : names.front(), modules) +
        (pattern ? " (a pattern must match the whole name, as '.*\\.q_proj' does)" : ""));
  }
  return chosen;
}

std::string target_name(const Peft& peft, const std::string& module) {
  return names_weight(peft, module) ? module + kWeight : module;
}

std::vector<TargetModule> modules_of(Model& model) {
  std::vector<TargetModule> modules;
  for (const LinearSlot& slot : model.linears()) modules.push_back({.name = slot.module});
  for (const Parameter& parameter : model.parameters()) {
    const std::string module = parameter.name.substr(0, parameter.name.rfind('.'));
    const bool known = std::any_of(modules.begin(), modules.end(),
                                   [&](const TargetModule& m) { return m.name == module; });
    const bool head = module == kHead;
    if (!known) modules.push_back({.name = module, .linear = head, .output_head = head});
  }
  if (model.config().tie_word_embeddings) {
    modules.push_back({.name = kHead, .linear = true, .output_head = true});
  }
  return modules;
}

Names shortened_targets(const Names& chosen, const std::vector<TargetModule>& modules) {
  if (chosen.size() < kManyTargets) return chosen;
  Names others;
  for (const TargetModule& module : modules) {
    if (std::find(chosen.begin(), chosen.end(), module.name) == chosen.end())
      others.push_back(module.name);
  }
  return shortest_endings(chosen, others);
}

NamesOrPattern saved_targets(const Peft& peft, const std::vector<TargetModule>& modules) {
  TEMPER_CHECK(peft.target_modules.has_value(), "set_default_targets comes first");
  if (!is_all_linear(*peft.target_modules)) return *peft.target_modules;
  const Names names = linear_modules(modules);
  // IA3's feedforward_modules are a part of this list, name by name.
  return peft.method == "ia3" ? names : shortened_targets(names, modules);
}

bool is_feedforward(const Peft& peft, const std::string& module) {
  if (!peft.feedforward_modules) return false;
  if (const auto* pattern = std::get_if<std::string>(&*peft.feedforward_modules)) {
    return NamePattern(*pattern, "peft.feedforward_modules").matches(module);
  }
  const auto& names = std::get<Names>(*peft.feedforward_modules);
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return module.ends_with(name); });
}

int64_t pattern_value(const std::map<std::string, int64_t>& patterns, const std::string& module,
                      int64_t otherwise) {
  return first_match(patterns, module, otherwise);
}

double pattern_value(const std::map<std::string, double>& patterns, const std::string& module,
                     double otherwise) {
  return first_match(patterns, module, otherwise);
}

bool names_module(const std::vector<std::string>& names, const std::string& module) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return module.ends_with(name); });
}

}  // namespace temper::trainer
