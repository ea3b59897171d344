#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "data/text/vocabulary.h"

/// A vocabulary by its bytes: all pieces that begin at one place of a text in one walk.
namespace temper::data {

class PieceTree {
 public:
  /// Of equal pieces the last one counts; empty ones are left out.
  explicit PieceTree(std::vector<std::pair<std::string_view, int32_t>> pieces);

  /// found(id, end) for every piece that begins at text[begin], shortest first.
  template <typename Found>
  void find_all(std::string_view text, size_t begin, const Found& found) const {
    const Node* node = &nodes_[0];
    for (size_t at = begin; at < text.size(); ++at) {
      node = child(*node, static_cast<uint8_t>(text[at]));
      if (node == nullptr) return;
      if (node->id != kNoToken) found(node->id, at + 1);
    }
  }

 private:
  struct Node {
    uint32_t children = 0;  // the first of them; they stand together, sorted by their bytes
    uint16_t count = 0;
    uint8_t byte = 0;
    int32_t id = kNoToken;
  };

  const Node* child(const Node& node, uint8_t byte) const {
    const Node* first = nodes_.data() + node.children;
    uint32_t count = node.count;
    while (count > 1) {  // the lower half, or what is not below its end
      const uint32_t half = count / 2;
      if (first[half].byte <= byte) first += half;
      count -= half;
    }
    return count == 1 && first->byte == byte ? first : nullptr;
  }

  std::vector<Node> nodes_;
};

/// All tokens that begin with `prefix`, which is cut off.
std::vector<std::pair<std::string_view, int32_t>> list_pieces(const Vocabulary& vocabulary,
                                                              std::string_view prefix = "");

}  // namespace temper::data
