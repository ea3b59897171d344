#include "data/text/passage.h"

#include <utility>

#include "data/text/unicode.h"

namespace temper::data {

Passage::Passage(std::string_view text, uint32_t base, bool track)
    : text_(text), base_(base), track_(track), at_start_(base == 0) {
  if (!text.empty()) words_.push_back({0, static_cast<uint32_t>(text.size())});
}

Span Passage::origin_of_byte(size_t at) const {
  if (!origins_.empty()) return origins_[at];
  size_t begin = at;
  while (begin > 0 && continues_character(text_[begin])) --begin;
  const auto first = static_cast<uint32_t>(begin);
  return {base_ + first, base_ + first + static_cast<uint32_t>(utf8_size(text_[begin]))};
}

Span Passage::original(Span span) const {
  if (span.begin == span.end) return {base_, base_};
  return {origin_of_byte(span.begin).begin, origin_of_byte(span.end - 1).end};
}

bool Passage::at_original_start(size_t at) const {
  return origins_.empty() ? at == 0 && at_start_ : origins_[at].begin == 0;
}

Passage Passage::slice(Span span) const {
  Passage part(text(span), base_, track_);
  if (origins_.empty()) {
    part.base_ += span.begin;
    part.at_start_ = at_start_ && span.begin == 0;
  } else {
    part.origins_.assign(origins_.begin() + span.begin, origins_.begin() + span.end);
    if (!part.origins_.empty()) part.base_ = part.origins_.front().begin;
  }
  return part;
}

Rewrite::Rewrite(Passage& passage) : passage_(passage) {
  text_.reserve(passage.text_.size() + passage.text_.size() / 2);
}

void Rewrite::note_first(bool from_start) {
  if (text_.empty()) at_start_ = from_start && passage_.at_start_;
}

void Rewrite::keep(Span old) {
  note_first(old.begin == 0);
  text_.append(passage_.text_, old.begin, old.size());
  if (!passage_.track_) return;
  for (size_t at = old.begin; at < old.end; ++at) origins_.push_back(passage_.origin_of_byte(at));
}

void Rewrite::put(std::string_view bytes, size_t old) {
  note_first(old == 0);
  text_.append(bytes);
  if (passage_.track_) origins_.insert(origins_.end(), bytes.size(), passage_.origin_of_byte(old));
}

void Rewrite::insert(std::string_view bytes, size_t before) {
  note_first(before == 0 || before <= utf8_size(passage_.text_[0]));
  text_.append(bytes);
  if (!passage_.track_) return;
  const Span origin =
      before == 0 ? Span{passage_.base_, passage_.base_} : passage_.origin_of_byte(before - 1);
  origins_.insert(origins_.end(), bytes.size(), origin);
}

void Rewrite::apply(std::span<const Change> changes, Span old) {
  size_t at = old.begin;
  std::string bytes;
  for (const Change& c : changes) {
    bytes.clear();
    append_utf8(bytes, c.character);
    if (c.change > 0) {
      insert(bytes, at);
      continue;
    }
    put(bytes, at);
    for (int i = 0; i <= -c.change && at < old.end; ++i) at += utf8_size(passage_.text_[at]);
  }
}

void Rewrite::close_word(size_t begin) {
  if (text_.size() > begin) {
    words_.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(text_.size())});
  }
}

void Rewrite::finish() {
  if (words_.empty() && !text_.empty()) close_word(0);
  passage_.text_ = std::move(text_);
  passage_.words_ = std::move(words_);
  passage_.origins_ = std::move(origins_);
  passage_.at_start_ = at_start_;
}

}  // namespace temper::data
