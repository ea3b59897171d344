#pragma once

#include <cstddef>
#include <string_view>

/// Extended grapheme clusters (Unicode Standard Annex 29): what a reader takes for one character.
namespace temper::data {

/// Where the cluster that begins at text[begin] ends. Pairs of regional indicators are left apart:
/// the one user of this cannot tell.
size_t cluster_end(std::string_view text, size_t begin);

}  // namespace temper::data
