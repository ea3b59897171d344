#include "data/text/model.h"

namespace temper::data {

namespace {

constexpr Builder<std::unique_ptr<Model>> kModels[] = {
    {"BPE", build_bpe},
    {"WordPiece", build_wordpiece},
    {"WordLevel", build_wordlevel},
    {"Unigram", build_unigram},
};

}  // namespace

std::unique_ptr<Model> build_model(const Component& component) {
  const Json& value = component.value;
  if (!value.is_object() || value.contains("type")) {
    return build_from<std::unique_ptr<Model>>(kModels, component);
  }
  if (value.contains("merges")) return build_bpe(component);
  if (value.contains("max_input_chars_per_word")) return build_wordpiece(component);
  if (value.contains("vocab") && value["vocab"].is_array()) return build_unigram(component);
  if (value.contains("unk_token")) return build_wordlevel(component);
  component.fail("lacks 'type', and its fields are those of no model");
}

}  // namespace temper::data
