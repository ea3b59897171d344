#include "launch/length_report.h"

#include <algorithm>
#include <bit>
#include <map>
#include <numeric>
#include <vector>

#include "data/loader/pack.h"
#include "recipes/enum_names.h"

namespace temper::launch {

using data::Json;

Json length_report(std::span<const int32_t> lengths) {
  if (lengths.empty()) return nullptr;
  std::vector<int32_t> sorted(lengths.begin(), lengths.end());
  std::sort(sorted.begin(), sorted.end());
  std::map<int, int64_t> rows;  // by the width of the length in bits
  for (const int32_t length : sorted) ++rows[std::bit_width(static_cast<uint32_t>(length))];
  Json histogram = Json::array();
  for (int width = rows.begin()->first; width <= rows.rbegin()->first; ++width) {
    const int64_t from = width == 0 ? 0 : int64_t{1} << (width - 1);
    histogram.push_back({{"from", from}, {"to", (int64_t{1} << width) - 1}, {"rows", rows[width]}});
  }
  const int64_t tokens = std::accumulate(sorted.begin(), sorted.end(), int64_t{0});
  return {{"mean", static_cast<double>(tokens) / static_cast<double>(sorted.size())},
          {"median", sorted[sorted.size() / 2]},
          {"longest", sorted.back()},
          {"histogram", histogram}};
}

Json fill_report(std::span<const int32_t> lengths, const recipes::Data& data, int64_t micro) {
  if (lengths.empty()) return nullptr;
  const data::PackedRows packed =
      data::pack(lengths, data.max_length, data.packing, data.packing_window);
  int64_t tokens = 0, positions = 0;
  for (int64_t first = 0; first < packed.size(); first += micro) {
    const int64_t end = std::min(first + micro, packed.size());
    int64_t longest = 0;
    for (int64_t i = first; i < end; ++i) {
      int64_t length = 0;
      for (const data::Segment& segment : packed[i]) length += segment.end - segment.begin;
      tokens += length;
      longest = std::max(longest, length);
    }
    positions += longest * (end - first);
  }
  return {{"packing", recipes::name_of(data.packing)},
          {"max_length", data.max_length},
          {"sequences", packed.size()},
          {"ratio",
           static_cast<double>(tokens) / static_cast<double>(std::max<int64_t>(positions, 1))}};
}

}  // namespace temper::launch
