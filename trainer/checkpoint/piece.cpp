#include "trainer/checkpoint/piece.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <regex>

#include "recipes/diagnostic.h"

namespace temper::trainer {

std::string Piece::name() const {
  std::vector<std::string> sizes;
  for (const int64_t size : shape) sizes.push_back(std::to_string(size));
  return whole + "[" + std::to_string(begin) + ":" + std::to_string(end) + " of " +
         join(sizes, ",") + "]";
}

int64_t Piece::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::string piece_name(const std::string& whole, at::IntArrayRef shape, int64_t begin, int64_t count) {
  return Piece{.whole = whole, .begin = begin, .end = begin + count, .shape = shape.vec()}.name();
}

std::optional<Piece> piece_of(const std::string& name) {
  if (!name.ends_with("]")) return {};
  static const std::regex form(R"((.*)\[(\d{1,18}):(\d{1,18}) of (\d{1,18}(?:,\d{1,18})*)\])");
  std::smatch match;
  if (!std::regex_match(name, match, form)) return {};
  Piece piece{.whole = match[1], .begin = std::stoll(match[2]), .end = std::stoll(match[3]), .shape = {}};
  const std::string sizes = match[4];
  for (size_t at = 0; at < sizes.size(); at = std::min(sizes.find(',', at), sizes.size()) + 1) {
    piece.shape.push_back(std::stoll(sizes.substr(at)));
  }
  return piece;
}

}  // namespace temper::trainer
