#include "data/text/piece_tree.h"

#include <algorithm>
#include <cstddef>

namespace temper::data {

PieceTree::PieceTree(std::vector<std::pair<std::string_view, int32_t>> pieces) {
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // Each node with the sorted pieces that it begins, level by level.
  struct Range {
    size_t begin, end;
  };
  std::vector<Range> ranges = {{0, pieces.size()}};
  nodes_.emplace_back();
  size_t depth = 0;
  for (size_t node = 0, level_end = 1; node < nodes_.size(); ++node) {
    if (node == level_end) {
      ++depth;
      level_end = nodes_.size();
    }
    auto [at, end] = ranges[node];
    for (; at < end && pieces[at].first.size() == depth; ++at) {
      if (depth > 0) nodes_[node].id = pieces[at].second;
    }
    nodes_[node].children = static_cast<uint32_t>(nodes_.size());
    while (at < end) {
      const char byte = pieces[at].first[depth];
      const size_t begin = at;
      while (at < end && pieces[at].first[depth] == byte) ++at;
      nodes_.push_back({.byte = static_cast<uint8_t>(byte)});
      ranges.push_back({begin, at});
      ++nodes_[node].count;
    }
  }
}

std::vector<std::pair<std::string_view, int32_t>> list_pieces(const Vocabulary& vocabulary,
                                                              std::string_view prefix) {
  std::vector<std::pair<std::string_view, int32_t>> pieces;
  for (int32_t id = 0; id < vocabulary.end_id(); ++id) {
    const std::string* token = vocabulary.token(id);
    if (token == nullptr || !token->starts_with(prefix)) continue;
    pieces.emplace_back(std::string_view(*token).substr(prefix.size()), vocabulary.find(*token));
  }
  return pieces;
}

}  // namespace temper::data
