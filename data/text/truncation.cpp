#include "data/text/truncation.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "data/text/passage.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

int64_t size_of(const Encoding& encoding) { return static_cast<int64_t>(encoding.ids.size()); }

std::pair<int64_t, int64_t> longest_first(int64_t first, int64_t second, int64_t max_length) {
  const int64_t shorter = std::min(first, second);
  const int64_t longer = std::max(shorter, max_length - shorter);
  const bool cuts_both = shorter + longer > max_length;
  // The longer text gets the odd token, the second one if they are alike.
  const int64_t left_of_shorter = cuts_both ? max_length / 2 : shorter;
  const int64_t left_of_longer = cuts_both ? max_length - max_length / 2 : longer;
  return first > second ? std::pair(left_of_longer, left_of_shorter)
                        : std::pair(left_of_shorter, left_of_longer);
}

// The first window is what remains.
std::vector<Span> list_windows(uint32_t size, uint32_t length, uint32_t stride, bool from_left) {
  std::vector<Span> windows;
  for (uint32_t done = 0;; done += length - stride) {
    const uint32_t end = std::min(done + length, size);
    windows.push_back(from_left ? Span{size - end, size - done} : Span{done, end});
    if (end == size) return windows;
  }
}

void cut(Encoding& encoding, int64_t length, const Truncation& truncation) {
  if (length >= size_of(encoding)) return;
  if (length == 0) {
    Encoding rest = std::exchange(encoding, {});
    encoding.overflowing.push_back(std::move(rest));
    return;
  }
  if (truncation.stride >= length) {
    throw UserError("truncation: stride " + std::to_string(truncation.stride) +
                    " must be less than the " + std::to_string(length) +
                    " tokens that a text is cut to");
  }
  const auto windows =
      list_windows(static_cast<uint32_t>(encoding.ids.size()), static_cast<uint32_t>(length),
                   static_cast<uint32_t>(truncation.stride), truncation.from_left);
  Encoding result = slice(encoding, windows[0].begin, windows[0].end);
  for (size_t i = 1; i < windows.size(); ++i) {
    result.overflowing.push_back(slice(encoding, windows[i].begin, windows[i].end));
  }
  encoding = std::move(result);
}

}  // namespace

std::optional<Truncation> parse_truncation(const Component& component) {
  if (component.value.is_null()) return std::nullopt;
  const size_t strategy = component.choice("strategy", {"LongestFirst", "OnlyFirst", "OnlySecond"});
  const bool names_direction = component.value.contains("direction");
  const Truncation truncation{
      .max_length = component.integer("max_length"),
      .stride = component.integer("stride"),
      .strategy = static_cast<Truncation::Strategy>(strategy),
      .from_left = names_direction && component.choice("direction", {"Left", "Right"}) == 0};
  if (truncation.max_length < 0) component.fail("'max_length' must be 0 or more");
  if (truncation.stride < 0) component.fail("'stride' must be 0 or more");
  return truncation;
}

void truncate(Encoding& first, Encoding* second, const Truncation& truncation) {
  const int64_t max_length = truncation.max_length;
  const int64_t first_size = size_of(first);
  const int64_t second_size = second == nullptr ? 0 : size_of(*second);
  const int64_t surplus = first_size + second_size - max_length;
  if (max_length == 0) {
    cut(first, 0, truncation);
    if (second != nullptr) cut(*second, 0, truncation);
    return;
  }
  if (surplus <= 0) return;
  if (truncation.strategy == Truncation::Strategy::kLongestFirst) {
    if (second == nullptr) return cut(first, max_length, truncation);
    const auto [left_of_first, left_of_second] = longest_first(first_size, second_size, max_length);
    cut(first, left_of_first, truncation);
    cut(*second, left_of_second, truncation);
    return;
  }
  const bool only_first = truncation.strategy == Truncation::Strategy::kOnlyFirst;
  Encoding* target = only_first ? &first : second;
  const char* name = only_first ? "first" : "second";
  if (target == nullptr) {
    throw UserError("truncation: strategy OnlySecond needs a pair of texts");
  }
  if (size_of(*target) <= surplus) {
    throw UserError(std::string("truncation: the ") + name + " text, the only one to be cut, has " +
                    std::to_string(size_of(*target)) + " tokens, but " + std::to_string(surplus) +
                    " are too many");
  }
  cut(*target, size_of(*target) - surplus, truncation);
}

}  // namespace temper::data
