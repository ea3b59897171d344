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

/// Full compatibility decomposition, where it is not the canonical one: `count` code points of compatible_parts().
struct CompatibleDecomposition {
  uint32_t code_point;
  uint32_t begin;
  uint32_t count;
};

/// Lower case of one character alone; second is 0 where there is none.
struct LowercaseMapping {
  uint32_t code_point;
  uint32_t parts[2];
};

/// What decides where grapheme clusters begin, as bits of ClusterFlag.
struct ClusterFlags {
  uint32_t first;
  uint32_t last;
  uint32_t flags;
};
enum ClusterFlag : uint32_t {
  kJoins = 1,         // belongs to the cluster before it (Extend, ZWJ, SpacingMark)
  kControl = 2,       // a cluster of its own
  kPrepend = 4,       // takes in the character after it
  kPictographic = 8,  // joins over ZWJ to another
  kExtend = 16,       // may stand between a pictographic character and ZWJ
  kConsonant = 32,    // joins over a linker to another
  kLinker = 64,
  kConjunct = 128,  // may stand between consonant, linker and consonant
};

/// Characters of one script, which are numbered in no special order; spaces and unassigned characters
/// are in none.
struct ScriptRange {
  uint32_t first;
  uint32_t last;
  uint32_t script;
};

std::span<const CodePointRange> numeric_ranges();
std::span<const CodePointRange> word_ranges();
std::span<const CodePointRange> punctuation_ranges();
std::span<const CodePointRange> chinese_ranges();
/// What StripAccents takes away, and what BertNormalizer does.
std::span<const CodePointRange> accent_ranges();
std::span<const CodePointRange> bert_accent_ranges();
std::span<const CodePointRange> bert_removed_ranges();
std::span<const CodePointRange> bert_space_ranges();
std::span<const CodePointRange> nmt_removed_ranges();
std::span<const CodePointRange> nmt_space_ranges();
std::span<const ClusterFlags> cluster_flags();
std::span<const ScriptRange> script_ranges();
std::span<const CompatibleDecomposition> compatible_decompositions();
std::span<const char32_t> compatible_parts();
std::span<const LowercaseMapping> lowercase_mappings();
std::span<const StandIn> regex_stand_ins();
std::span<const CombiningClass> combining_classes();
std::span<const Decomposition> canonical_decompositions();
std::span<const Composition> canonical_compositions();

}  // namespace temper::data
