#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "recipes/recipe.h"

/// Rows to packed rows of at most `capacity` tokens, a pure function of the lengths. Works window
/// by window in file order, so that what a row is packed with never depends on rows far away.
namespace temper::data {

/// Tokens [begin, end) of a row: one document of a packed row.
struct Segment {
  int64_t row;
  int32_t begin;
  int32_t end;
  bool operator==(const Segment&) const = default;
};

/// Packed row i holds segments [offsets[i], offsets[i + 1]).
struct PackedRows {
  std::vector<Segment> segments;
  std::vector<int64_t> offsets = {0};
  int64_t size() const { return static_cast<int64_t>(offsets.size()) - 1; }
  std::span<const Segment> operator[](int64_t i) const {
    return std::span(segments).subspan(static_cast<size_t>(offsets[i]),
                                       static_cast<size_t>(offsets[i + 1] - offsets[i]));
  }
};

/// kNone: each row by itself, cut to capacity. kBfd: best fit decreasing (Ding et al. 2024,
/// arXiv:2404.10830), longer rows cut to capacity: rows longest first (equal ones in file order),
/// each into the fullest bin that has room (among equals the one that has been that full longest),
/// else into a new one. kBfdSplit: the same with longer rows cut into pieces of capacity. kWrapped:
/// rows end to end, cut every `capacity` tokens (Raffel et al. 2020, arXiv:1910.10683). Rows
/// without tokens are left out.
PackedRows pack(std::span<const int32_t> lengths, int64_t capacity, recipes::Packing packing,
                int64_t window);

}  // namespace temper::data
