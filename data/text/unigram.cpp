#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "data/text/byte_fallback.h"
#include "data/text/model.h"
#include "data/text/piece_tree.h"
#include "data/text/unicode.h"
#include "recipes/diagnostic.h"

/// Unigram (Kudo 2018, arXiv:1804.10959): of all ways to write a word as pieces, the one with the
/// highest sum of scores. A character that is no piece costs 10 more than the worst piece;
/// neighbours of that kind become one unknown token.
namespace temper::data {

namespace {

constexpr double kUnknownPenalty = 10;

class Unigram : public Model {
 public:
  Unigram(Vocabulary vocabulary, std::vector<double> scores, int32_t unknown, bool byte_fallback)
      : Model(std::move(vocabulary)),
        tree_(list_pieces(this->vocabulary())),
        scores_(std::move(scores)),
        unknown_(unknown) {
    if (byte_fallback) bytes_.emplace(this->vocabulary());
    const auto lowest = std::min_element(scores_.begin(), scores_.end());
    unknown_score_ = (lowest == scores_.end() ? 0 : *lowest) - kUnknownPenalty;
  }

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override {
    thread_local std::vector<Step> best;  // the best way to each position
    find_best(word, best);
    const size_t before = tokens.size();
    for (auto end = static_cast<uint32_t>(word.size()); end > 0;) {
      Step step = best[end];
      // Unknown neighbours are one stretch.
      while (step.id == unknown_ && step.begin > 0 && best[step.begin].id == unknown_) {
        step.begin = best[step.begin].begin;
      }
      put(word, step, end, tokens);
      end = step.begin;
    }
    std::reverse(tokens.begin() + static_cast<std::ptrdiff_t>(before), tokens.end());
  }
  bool spells_as_text(int32_t id) const override { return id == unknown_; }

 private:
  struct Step {
    double score = 0;
    uint32_t begin = kUnreached;
    int32_t id = kNoToken;
  };
  static constexpr uint32_t kUnreached = std::numeric_limits<uint32_t>::max();

  void find_best(std::string_view word, std::vector<Step>& best) const {
    best.assign(word.size() + 1, Step{});
    for (size_t at = 0; at < word.size();) {
      const double score = best[at].score;
      const size_t size = utf8_size(word[at]);
      bool has_character = false;
      const auto offer = [&](int32_t id, size_t end, double total) {
        if (best[end].begin != kUnreached && total <= best[end].score) return;
        best[end] = {total, static_cast<uint32_t>(at), id};
      };
      tree_.find_all(word, at, [&](int32_t id, size_t end) {
        offer(id, end, scores_[static_cast<size_t>(id)] + score);
        has_character |= end == at + size;
      });
      if (!has_character) {
        if (unknown_ == kNoToken) {
          throw UserError("'" + std::string(word.substr(at, size)) +
                          "' is unknown to the tokenizer, whose model has no unk_id");
        }
        offer(unknown_, at + size, unknown_score_ + score);
      }
      at += size;
    }
  }

  // Appends the token of word[step.begin, end), or its bytes, last first.
  void put(std::string_view word, const Step& step, uint32_t end,
           std::vector<WordToken>& tokens) const {
    if (step.id == unknown_ && unknown_ != kNoToken) {
      const std::string_view stretch = word.substr(step.begin, end - step.begin);
      const int32_t known = vocabulary().find(stretch);
      if (known == kNoToken && bytes_ && bytes_->spells(stretch)) {
        for (auto byte = stretch.rbegin(); byte != stretch.rend(); ++byte) {
          tokens.push_back({bytes_->id(*byte), step.begin, end});
        }
        return;
      }
      tokens.push_back({known == kNoToken ? unknown_ : known, step.begin, end});
      return;
    }
    tokens.push_back({step.id, step.begin, end});
  }

  PieceTree tree_;
  std::vector<double> scores_;
  int32_t unknown_;
  double unknown_score_;
  std::optional<FallbackTokens> bytes_;
};

}  // namespace

std::unique_ptr<Model> build_unigram(const Component& component) {
  const Json& pieces = component.field("vocab");
  if (!pieces.is_array()) component.fail("'vocab' must be an array of [piece, score]");
  Vocabulary vocabulary;
  std::vector<double> scores;
  for (const Json& piece : pieces) {
    if (!piece.is_array() || piece.size() != 2 || !piece[0].is_string() || !piece[1].is_number() ||
        !std::isfinite(piece[1].get<double>())) {
      component.fail("vocab[" + std::to_string(scores.size()) + "] must be [piece, score]");
    }
    vocabulary.add(piece[0].get<std::string>(), static_cast<int32_t>(scores.size()));
    scores.push_back(piece[1].get<double>());
  }
  int32_t unknown = kNoToken;
  if (const auto id = component.value.find("unk_id");
      id != component.value.end() && !id->is_null()) {
    const int64_t given = component.integer("unk_id");
    if (given < 0 || given >= static_cast<int64_t>(scores.size())) {
      component.fail("unk_id " + std::to_string(given) + " is not in the vocabulary");
    }
    unknown = static_cast<int32_t>(given);
  }
  return std::make_unique<Unigram>(std::move(vocabulary), std::move(scores), unknown,
                                   component.flag("byte_fallback", false));
}

}  // namespace temper::data
