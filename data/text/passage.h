#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// A stretch of text on its way from the user's bytes to the model's words, with the way back.
///
/// Normalizers rewrite `text()`; pre-tokenizers cut it into words() and may rewrite it too. Where
/// tracking is on, every byte remembers the bytes of the original it came from; a passage nobody
/// has rewritten needs no such memory.
namespace temper::data {

struct Span {
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t size() const { return end - begin; }
  bool operator==(const Span&) const = default;
};

class Passage {
 public:
  /// `base`: where `text` begins in the original.
  Passage(std::string_view text, uint32_t base, bool track);

  const std::string& text() const { return text_; }
  std::string_view text(Span span) const {
    return std::string_view(text_).substr(span.begin, span.size());
  }
  std::vector<Span>& words() { return words_; }
  const std::vector<Span>& words() const { return words_; }

  /// Where these bytes of text() came from; needs tracking. An empty span gives {base, base}.
  Span original(Span span) const;
  /// Whether this byte of text() came from the very start of the original; known without tracking
  /// too.
  bool at_original_start(size_t at) const;
  /// A part of the passage as a passage of its own, one word long.
  Passage slice(Span span) const;

 private:
  friend class Rewrite;
  Span origin_of_byte(size_t at) const;

  std::string text_;
  std::vector<Span> words_;
  std::vector<Span>
      origins_;  // one for each byte of text_; empty while text_ is the original's own
  uint32_t base_;
  bool track_;
  bool at_start_;  // the first byte of text_ came from the start of the original
};

/// A character on its way through a normalization that moves, splits and joins characters. `change`
/// is how many characters of the source it stands for, less one (+1: inserted), which is how the
/// package's alignments are made.
struct Change {
  uint32_t character;
  int change;
};

/// Builds the next text of a passage from left to right, then takes its place.
class Rewrite {
 public:
  explicit Rewrite(Passage& passage);

  size_t size() const { return text_.size(); }
  /// Old bytes as they are.
  void keep(Span old);
  /// New bytes in place of the character or byte that began at `old`: they come from where it came
  /// from.
  void put(std::string_view bytes, size_t old);
  /// New bytes that were inserted before the old position `before`: they share the origin of the
  /// byte ahead of it.
  void insert(std::string_view bytes, size_t before);
  /// New characters in place of the old bytes.
  void apply(std::span<const Change> changes, Span old);
  /// Ends a word that began at new position `begin`. Without any call the whole text is one word.
  void close_word(size_t begin);
  void finish();

 private:
  void note_first(bool from_start);

  Passage& passage_;
  std::string text_;
  std::vector<Span> words_;
  std::vector<Span> origins_;
  bool at_start_ = false;
};

}  // namespace temper::data
