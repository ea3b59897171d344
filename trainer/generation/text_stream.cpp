#include "trainer/generation/text_stream.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "data/text/tokenizer.h"

namespace temper::trainer {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// Where the first of `stop` begins in `text`, or npos.
size_t find_stop(const std::string& text, const std::vector<std::string>& stop) {
  size_t first = std::string::npos;
  for (const std::string& s : stop) first = std::min(first, text.find(s));
  return first;
}

/// Where the longest end of `text` begins that is the beginning of one of `stop`; text.size() when
/// none is.
size_t possible_stop(const std::string& text, const std::vector<std::string>& stop) {
  size_t longest = 0;
  for (const std::string& s : stop) {
    for (size_t length = std::min(s.size() - 1, text.size()); length > longest; --length) {
      if (text.compare(text.size() - length, length, s, 0, length) == 0) longest = length;
    }
  }
  return text.size() - longest;
}

}  // namespace

TextStream::TextStream(const data::Tokenizer& tokenizer, std::vector<std::string> stop,
                       std::function<void(const std::string&)> on_text)
    : tokenizer_(tokenizer), stop_(std::move(stop)), on_text_(std::move(on_text)) {}

bool TextStream::push(int32_t id) {
  ids_.push_back(id);
  const std::span<const int32_t> window = std::span<const int32_t>(ids_).subspan(context_);
  const std::string before =
      tokenizer_.decode(window.first(fresh_ - context_), /*skip_special_tokens=*/true);
  const std::string now = tokenizer_.decode(window, /*skip_special_tokens=*/true);
  if (now.size() <= before.size() || now.ends_with(kReplacement)) return stopped_;
  context_ = fresh_;
  fresh_ = ids_.size();
  return release(now.substr(before.size()), /*last=*/false);
}

bool TextStream::finish() {
  const std::span<const int32_t> window = std::span<const int32_t>(ids_).subspan(context_);
  const std::string before =
      tokenizer_.decode(window.first(fresh_ - context_), /*skip_special_tokens=*/true);
  const std::string now = tokenizer_.decode(window, /*skip_special_tokens=*/true);
  fresh_ = ids_.size();
  return release(now.size() > before.size() ? now.substr(before.size()) : "", /*last=*/true);
}

bool TextStream::release(const std::string& fresh, bool last) {
  if (stopped_) return true;
  held_ += fresh;
  size_t end = find_stop(held_, stop_);
  stopped_ = end != std::string::npos;
  if (!stopped_) end = last ? held_.size() : possible_stop(held_, stop_);
  const std::string piece = held_.substr(0, end);
  held_.erase(0, end);
  text_ += piece;
  if (!piece.empty() && on_text_) on_text_(piece);
  return stopped_;
}

}  // namespace temper::trainer
