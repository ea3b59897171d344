#include "data/loader/pack.h"

#include <algorithm>
#include <deque>
#include <map>

#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

int32_t length_of(const Segment& segment) { return segment.end - segment.begin; }

void close_row(PackedRows& packed) {
  packed.offsets.push_back(static_cast<int64_t>(packed.segments.size()));
}

// Pieces of at most `capacity`; the rest of a longer row is cut off unless `split`.
std::vector<Segment> pieces(std::span<const int32_t> lengths, int64_t first_row, int32_t capacity,
                            bool split) {
  std::vector<Segment> result;
  result.reserve(lengths.size());
  for (size_t i = 0; i < lengths.size(); ++i) {
    for (int32_t begin = 0; begin < lengths[i]; begin += capacity) {
      result.push_back({.row = first_row + static_cast<int64_t>(i),
                        .begin = begin,
                        .end = std::min(lengths[i], begin + capacity)});
      if (!split || lengths[i] - begin <= capacity) break;
    }
  }
  return result;
}

void pack_best_fit(std::vector<Segment> items, int32_t capacity, PackedRows& packed) {
  std::stable_sort(items.begin(), items.end(),
                   [](const Segment& a, const Segment& b) { return length_of(a) > length_of(b); });
  std::vector<std::vector<Segment>> bins;
  std::map<int32_t, std::deque<size_t>> open;  // free tokens -> bins, the one there longest first
  for (const Segment& item : items) {
    size_t bin = bins.size();
    int32_t room = capacity;
    if (const auto fullest = open.lower_bound(length_of(item)); fullest != open.end()) {
      room = fullest->first;
      bin = fullest->second.front();
      fullest->second.pop_front();
      if (fullest->second.empty()) open.erase(fullest);
    } else {
      bins.emplace_back();
    }
    bins[bin].push_back(item);
    if (room > length_of(item)) open[room - length_of(item)].push_back(bin);
  }
  for (const std::vector<Segment>& bin : bins) {
    packed.segments.insert(packed.segments.end(), bin.begin(), bin.end());
    close_row(packed);
  }
}

void pack_wrapped(std::span<const int32_t> lengths, int64_t first_row, int32_t capacity,
                  PackedRows& packed) {
  int32_t room = capacity;
  for (size_t i = 0; i < lengths.size(); ++i) {
    for (int32_t begin = 0; begin < lengths[i];) {
      const int32_t taken = std::min(lengths[i] - begin, room);
      packed.segments.push_back(
          {.row = first_row + static_cast<int64_t>(i), .begin = begin, .end = begin + taken});
      begin += taken;
      room -= taken;
      if (room == 0) {
        close_row(packed);
        room = capacity;
      }
    }
  }
  if (room < capacity) close_row(packed);
}

}  // namespace

PackedRows pack(std::span<const int32_t> lengths, int64_t capacity, recipes::Packing packing,
                int64_t window) {
  TEMPER_CHECK(capacity >= 1 && capacity <= INT32_MAX && window >= 1, "packing needs room");
  const int32_t room = static_cast<int32_t>(capacity);
  PackedRows packed;
  for (size_t first = 0; first < lengths.size();) {
    const size_t rows = std::min(lengths.size() - first, static_cast<size_t>(window));
    const std::span<const int32_t> part = lengths.subspan(first, rows);
    const int64_t first_row = static_cast<int64_t>(first);
    switch (packing) {
      case recipes::Packing::kNone:
        for (const Segment& row : pieces(part, first_row, room, /*split=*/false)) {
          packed.segments.push_back(row);
          close_row(packed);
        }
        break;
      case recipes::Packing::kBfd:
      case recipes::Packing::kBfdSplit:
        pack_best_fit(pieces(part, first_row, room, packing == recipes::Packing::kBfdSplit), room,
                      packed);
        break;
      case recipes::Packing::kWrapped:
        pack_wrapped(part, first_row, room, packed);
        break;
    }
    first += rows;
  }
  return packed;
}

}  // namespace temper::data
