#include "data/text/vocabulary_files.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "data/text/base64.h"
#include "data/text/byte_level.h"
#include "data/text/unicode.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

std::string without_return(std::string line) {
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

struct Rank {
  std::string token;  // bytes
  int64_t rank;
};

std::optional<Rank> parse_rank(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0) return std::nullopt;
  // Whisper's file ends with "=", a token of no bytes.
  const auto token = decode_base64(line.substr(0, space));
  const std::string_view number = line.substr(space + 1);
  Rank result{.token = token.value_or(""), .rank = -1};
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), result.rank);
  const bool whole = error == std::errc() && end == number.data() + number.size();
  if (!whole || !token || result.rank < 0) return std::nullopt;
  return result;
}

std::string spell(std::string_view bytes) {
  std::string letters;
  for (const char byte : bytes) letters += byte_letter(static_cast<uint8_t>(byte));
  return letters;
}

struct Merge {
  std::string_view left, right;
  int64_t left_id, right_id;
};

// Every way to cut `token` at one of `cuts` in two tokens, by the ids of both.
template <typename Ids>
std::vector<Merge> list_merges(std::string_view token, const std::vector<size_t>& cuts,
                               const Ids& ids) {
  std::vector<Merge> merges;
  for (const size_t cut : cuts) {
    const auto left = ids.find(token.substr(0, cut));
    const auto right = ids.find(token.substr(cut));
    if (left == ids.end() || right == ids.end()) continue;
    merges.push_back({left->first, right->first, left->second, right->second});
  }
  std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::pair(a.left_id, a.right_id) < std::pair(b.left_id, b.right_id);
  });
  return merges;
}

std::vector<size_t> character_cuts(std::string_view token) {
  std::vector<size_t> cuts;
  for (size_t at = 1; at < token.size(); ++at) {
    if (!continues_character(token[at])) cuts.push_back(at);
  }
  return cuts;
}

}  // namespace

void append(Json& object, std::string key, Json value) {
  object.get_ref<Json::object_t&>().emplace_back(std::move(key), std::move(value));
}

Json read_merges_file(const std::string& text) {
  Json merges = Json::array();
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    line = without_return(std::move(line));
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(std::move(line));
  }
  return merges;
}

Json read_word_list(const std::string& text) {
  Json vocabulary = Json::object();
  std::istringstream lines(text);
  int64_t id = 0;
  for (std::string line; std::getline(lines, line); ++id) {
    append(vocabulary, without_return(std::move(line)), id);
  }
  return vocabulary;
}

Json merges_of_scores(const SentencePieceModel& model) {
  std::unordered_map<std::string_view, int64_t> ids;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    ids[model.pieces[id].text] = static_cast<int64_t>(id);
  }
  struct Scored {
    Merge merge;
    std::tuple<float, size_t, size_t> key;
  };
  std::vector<Scored> all;
  for (const auto& piece : model.pieces) {
    const std::vector<size_t> cuts = character_cuts(piece.text);
    const size_t size = cuts.size() + 1;
    for (const Merge& merge : list_merges(piece.text, cuts, ids)) {
      const size_t left_size = character_cuts(merge.left).size() + 1;
      all.push_back({merge, {piece.score, left_size, size - left_size}});
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Scored& a, const Scored& b) { return a.key > b.key; });
  Json merges = Json::array();
  for (const Scored& scored : all) {
    merges.push_back(
        Json::array({std::string(scored.merge.left), std::string(scored.merge.right)}));
  }
  return merges;
}

bool looks_like_ranks(const std::string& text) {
  return parse_rank(std::string_view(text).substr(0, text.find('\n'))).has_value();
}

std::pair<Json, Json> vocabulary_of_ranks(const std::string& text, const std::string& where) {
  std::vector<Rank> ranks;
  std::istringstream lines(text);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    line = without_return(std::move(line));
    if (line.empty()) continue;
    auto rank = parse_rank(line);
    if (!rank) {
      throw UserError(where + ":" + std::to_string(number) +
                      ": must be the base64 of a token, a space and its rank");
    }
    ranks.push_back(std::move(*rank));
  }
  std::stable_sort(ranks.begin(), ranks.end(),
                   [](const Rank& a, const Rank& b) { return a.rank < b.rank; });
  std::unordered_map<std::string_view, int64_t> ids;
  for (const Rank& rank : ranks) ids[rank.token] = rank.rank;
  Json vocabulary = Json::object();
  Json merges = Json::array();
  for (const Rank& rank : ranks) {
    append(vocabulary, spell(rank.token), rank.rank);
    std::vector<size_t> cuts;
    for (size_t at = 1; at < rank.token.size(); ++at) cuts.push_back(at);
    for (const Merge& merge : list_merges(rank.token, cuts, ids)) {
      merges.push_back(Json::array({spell(merge.left), spell(merge.right)}));
    }
  }
  return {std::move(vocabulary), std::move(merges)};
}

}  // namespace temper::data
