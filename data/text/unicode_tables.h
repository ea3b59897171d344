#pragma once

#include <cstdint>
#include <span>

/// Tables made by make_unicode_tables.py, which asks PyPI's tokenizers about every code point. Sorted by `first` (or `code_point`).
namespace temper::data {

struct CodePointRange {
  uint32_t first;
  uint32_t last;
};

/// first..last look like `stand_in` to a regex: same category by Unicode 16, same UTF-8 size, and known to PCRE2.
struct StandIn {
  uint32_t first;
  uint32_t last;
  uint32_t stand_in;
};

/// Canonical combining class of first..last, where not 0.
struct CombiningClass {
  uint32_t first;
  uint32_t last;
  uint32_t value;
};

/// Full canonical decomposition; second to fourth are 0 where there is none.
struct Decomposition {
  uint32_t code_point;
  uint32_t parts[4];
};

/// left + right composes to `composed`. Sorted by (left, right).
struct Composition {
  uint32_t left;
  uint32_t right;
  uint32_t composed;
};

std::span<const CodePointRange> numeric_ranges();
std::span<const CodePointRange> word_ranges();
std::span<const StandIn> regex_stand_ins();
std::span<const CombiningClass> combining_classes();
std::span<const Decomposition> canonical_decompositions();
std::span<const Composition> canonical_compositions();

}  // namespace temper::data
