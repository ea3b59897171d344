#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/text/base64.h"
#include "data/text/clusters.h"
#include "data/text/normalizer.h"
#include "data/text/unicode.h"

/// SentencePiece's compiled rules: a double array (Aoe 1989) of UTF-8 strings and a pool of what
/// they become. The package looks up grapheme clusters of fewer than 6 bytes whole (the shortest
/// rule that begins one replaces all of it), and the characters of others one by one.
namespace temper::data {

namespace {

constexpr size_t kLongestCluster = 6;

class Charsmap {
 public:
  Charsmap(const std::string& bytes, const Component& component) {
    uint32_t size = 0;
    if (bytes.size() >= sizeof size) std::memcpy(&size, bytes.data(), sizeof size);
    if (size < sizeof size || size % sizeof size != 0 || size > bytes.size() - sizeof size) {
      component.fail("precompiled_charsmap is damaged: its table is cut short");
    }
    units_.resize(size / sizeof size);
    std::memcpy(units_.data(), bytes.data() + sizeof size, size);
    pool_ = bytes.substr(sizeof size + size);
    if (!is_valid_utf8(pool_)) {
      component.fail("precompiled_charsmap is damaged: its texts are not UTF-8");
    }
    for (uint32_t c = 0; c < is_plain_.size(); ++c) {
      is_plain_[c] = c != '\r' && !find(std::string(1, static_cast<char>(c)));
    }
  }

  /// What the shortest rule that begins `text` makes of it.
  std::optional<std::string_view> find(std::string_view text) const {
    size_t node = 0;
    uint32_t unit = unit_at(node);
    node ^= offset(unit);
    for (const char byte : text) {
      if (byte == 0) break;
      const auto label = static_cast<uint8_t>(byte);
      node ^= label;
      unit = unit_at(node);
      if ((unit & (kLeaf | 0xFF)) != label) break;
      node ^= offset(unit);
      if ((unit & kHasLeaf) != 0) return text_at(unit_at(node) & ~kLeaf);
    }
    return std::nullopt;
  }
  /// An ASCII character without a rule, and a cluster of its own before another one.
  bool is_plain(char byte) const {
    return static_cast<uint8_t>(byte) < 0x80 && is_plain_[static_cast<uint8_t>(byte)];
  }

 private:
  static constexpr uint32_t kLeaf = 1U << 31;
  static constexpr uint32_t kHasLeaf = 1U << 8;

  // Beyond the table nothing matches.
  uint32_t unit_at(size_t node) const { return node < units_.size() ? units_[node] : kLeaf; }
  static size_t offset(uint32_t unit) { return size_t{unit >> 10} << ((unit & (1U << 9)) >> 6); }
  std::string_view text_at(size_t begin) const {
    if (begin >= pool_.size()) return {};
    return std::string_view(pool_).substr(begin, pool_.find('\0', begin) - begin);
  }

  std::vector<uint32_t> units_;
  std::string pool_;
  std::array<bool, 128> is_plain_{};
};

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (const char byte : text) count += !continues_character(byte);
  return count;
}

// `old` becomes `text`: character by character, what is left over goes to the last one.
void replace(std::string_view old, std::string_view text, std::vector<Change>& changes) {
  const auto old_count = static_cast<int>(count_characters(old));
  int count = 0;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    changes.push_back({c.value, count++ < old_count ? 0 : 1});
    at += c.size;
  }
  if (count < old_count && !changes.empty()) changes.back().change += count - old_count;
}

void apply_charsmap(const Charsmap& charsmap, Passage& passage) {
  const std::string_view text = passage.text();
  thread_local std::vector<Change> changes;
  changes.clear();
  bool modified = false;
  const auto look_up = [&](std::string_view part) {
    const std::optional<std::string_view> found = charsmap.find(part);
    if (found) replace(part, *found, changes);
    modified |= found.has_value();
    return found.has_value();
  };
  for (size_t at = 0; at < text.size();) {
    if (charsmap.is_plain(text[at]) &&
        (at + 1 == text.size() || static_cast<uint8_t>(text[at + 1]) < 0x80)) {
      changes.push_back({static_cast<uint8_t>(text[at++]), 0});
      continue;
    }
    const size_t end = cluster_end(text, at);
    if (end - at < kLongestCluster && look_up(text.substr(at, end - at))) {
      at = end;
      continue;
    }
    while (at < end) {
      const CodePoint c = decode_utf8(text, at);
      if (!look_up(text.substr(at, c.size))) changes.push_back({c.value, 0});
      at += c.size;
    }
  }
  if (!modified) return;
  Rewrite rewrite(passage);
  rewrite.apply(changes, {0, static_cast<uint32_t>(text.size())});
  rewrite.finish();
}

}  // namespace

Normalizer build_precompiled(const Component& component) {
  // transformers writes null where a model has no rules.
  if (component.field("precompiled_charsmap").is_null()) return [](Passage&) {};
  const auto bytes = decode_base64(component.text("precompiled_charsmap"));
  if (!bytes) component.fail("precompiled_charsmap is not base64");
  if (bytes->empty()) return [](Passage&) {};
  return [charsmap = std::make_shared<const Charsmap>(*bytes, component)](Passage& passage) {
    apply_charsmap(*charsmap, passage);
  };
}

}  // namespace temper::data
