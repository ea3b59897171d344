#include "data/text/padding.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace temper::data {

namespace {

void pad_to(Encoding& encoding, size_t length, const Padding& padding) {
  for (Encoding& window : encoding.overflowing) pad_to(window, length, padding);
  if (encoding.ids.size() >= length) return;
  const size_t count = length - encoding.ids.size();
  Encoding filling =
      special_encoding(std::vector<int32_t>(count, padding.id),
                       std::vector<std::string>(count, padding.token), padding.type_id);
  filling.attention_mask.assign(count, 0);
  if (!padding.on_left) return append(encoding, filling);
  append(filling, encoding);
  filling.overflowing = std::move(encoding.overflowing);
  encoding = std::move(filling);
}

int32_t id_field(const Component& component, const char* name) {
  const int64_t id = component.integer(name);
  if (id < 0 || id > INT32_MAX) component.fail("'" + std::string(name) + "' must be an id");
  return static_cast<int32_t>(id);
}

}  // namespace

std::optional<Padding> parse_padding(const Component& component) {
  if (component.value.is_null()) return std::nullopt;
  Padding padding{.length = {},
                  .multiple_of = 0,
                  .on_left = component.choice("direction", {"Left", "Right"}) == 0,
                  .id = id_field(component, "pad_id"),
                  .type_id = id_field(component, "pad_type_id"),
                  .token = component.text("pad_token")};
  const Json& strategy = component.field("strategy");
  if (strategy.is_object() && strategy.contains("Fixed")) {
    padding.length = Component{strategy, component.where + ": strategy"}.integer("Fixed");
  } else if (strategy != "BatchLongest") {
    component.fail("strategy must be \"BatchLongest\" or {\"Fixed\": length}");
  }
  const auto multiple = component.value.find("pad_to_multiple_of");
  if (multiple != component.value.end() && !multiple->is_null()) {
    padding.multiple_of = component.integer("pad_to_multiple_of");
  }
  if (padding.length.value_or(0) < 0 || padding.multiple_of < 0) {
    component.fail("lengths must be 0 or more");
  }
  return padding;
}

void pad(std::span<Encoding> encodings, const Padding& padding) {
  size_t length = static_cast<size_t>(padding.length.value_or(0));
  if (!padding.length) {
    for (const Encoding& encoding : encodings) length = std::max(length, encoding.ids.size());
  }
  if (const auto multiple = static_cast<size_t>(padding.multiple_of); multiple > 0) {
    length = (length + multiple - 1) / multiple * multiple;
  }
  for (Encoding& encoding : encodings) pad_to(encoding, length, padding);
}

}  // namespace temper::data
