#include <algorithm>
#include <map>
#include <regex>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "recipes/diagnostic.h"
#include "trainer/adapters/methods.h"
#include "trainer/adapters/parts.h"
#include "trainer/ops/scale_features.h"

namespace temper::trainer {
namespace {

// PEFT's rule: a pattern for the whole name, or the end of the name, also inside a word.
bool is_feedforward(const recipes::NamesOrPattern& names, const std::string& module) {
  if (const auto* pattern = std::get_if<std::string>(&names))
    return std::regex_match(module, std::regex(*pattern));
  const auto& list = std::get<std::vector<std::string>>(names);
  return std::any_of(list.begin(), list.end(),
                     [&](const std::string& name) { return module.ends_with(name); });
}

class Ia3 final : public LinearAdapter {
 public:
  Ia3(const recipes::Peft& peft, const LinearSite& site, AdapterTensors& tensors)
      : feedforward_(is_feedforward(peft.feedforward_modules.value(), site.module)),
        ones_(peft.init_ia3_weights.value()),
        scale_(feedforward_ ? tensors.add(site, "ia3_l", {1, site.in_features})
                            : tensors.add(site, "ia3_l", {site.out_features, 1})) {}

  at::Tensor forward(const at::Tensor& x, const BaseLinear& base,
                     const AdapterContext& context) const override {
    if (!context.enabled) return base_output(base, x);
    if (feedforward_) return base_output(base, scale_features(x, scale_.value));
    return scale_features(base_output(base, x), scale_.value);
  }

  bool initialize(at::Tensor&, uint64_t seed) override {
    if (ones_)
      fill_master(scale_, 1);
    else
      draw_normal(scale_, 0, 1, seed, "ia3_l");
    return false;
  }

  void merge(at::Tensor& weight, at::Tensor& bias) const override {
    const at::NoGradGuard no_grad;
    weight.mul_(scale_.master);
    if (!feedforward_ && bias.defined()) bias.mul_(scale_.master.view(-1));
  }

 private:
  bool feedforward_;
  bool ones_;
  Parameter scale_;
};

}  // namespace

std::unique_ptr<LinearAdapter> build_ia3(const recipes::Peft& peft, const LinearSite& site,
                                         AdapterTensors& tensors) {
  return std::make_unique<Ia3>(peft, site, tensors);
}

std::vector<std::string> default_feedforward_modules(const std::string& model_type) {
  static const std::map<std::string, std::string> kDefaults = {
      {"llama", "down_proj"},      {"mistral", "down_proj"},       {"mixtral", "w2"},
      {"qwen2", "down_proj"},      {"qwen3", "down_proj"},         {"gemma", "down_proj"},
      {"gemma2", "down_proj"},     {"gemma3_text", "down_proj"},   {"phi", "fc2"},
      {"gpt2", "mlp.c_proj"},      {"gpt_neox", "dense_4h_to_h"},  {"bert", "output.dense"},
      {"roberta", "output.dense"}, {"deberta-v2", "output.dense"},
  };
  const auto found = kDefaults.find(model_type);
  if (found == kDefaults.end()) {
    throw UserError("peft.feedforward_modules: no default for model type '" + model_type +
                    "': list the modules whose input is scaled, such as [\"down_proj\"], or []");
  }
  return {found->second};
}

}  // namespace temper::trainer
