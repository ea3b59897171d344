#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/ATen_fwd.h>

namespace temper::trainer {

/// A flat run of a tensor's elements that one rank owns, by its name: wherever such a tensor goes
/// (optimizer, checkpoint), its name says what it is part of.
///
///     model.norm.weight[256:512 of 4096]      exp_avg/lm_head.weight[0:8192 of 4096,32]
struct Piece {
  std::string whole;  // the name without the range
  int64_t begin = 0;
  int64_t end = 0;
  std::vector<int64_t> shape;  // of the whole

  std::string name() const;
  int64_t elements() const;  // of the whole
};

/// Of `count` elements from `begin` on, of a tensor `whole`.
std::string piece_name(const std::string& whole, at::IntArrayRef shape, int64_t begin, int64_t count);

/// Unset for the name of a whole tensor.
std::optional<Piece> piece_of(const std::string& name);

}  // namespace temper::trainer
