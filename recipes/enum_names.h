#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "recipes/recipe.h"

/// How each enumeration of recipe.h is spelled in a recipe, in the order of its enumerators.
namespace temper::recipes {

template <class Enum>
inline constexpr std::array<std::string_view, 0> kNames{};

template <>
inline constexpr std::array<std::string_view, 3> kNames<Resume>{"auto", "never", "must"};
template <>
inline constexpr std::array<std::string_view, 3> kNames<Deterministic>{"false", "true", "layout"};
template <>
inline constexpr std::array<std::string_view, 2> kNames<Init>{"pretrained", "random"};
template <>
inline constexpr std::array<std::string_view, 3> kNames<Dtype>{"fp32", "bf16", "fp16"};
template <>
inline constexpr std::array<std::string_view, 3> kNames<Attention>{"auto", "flash", "math"};
template <>
inline constexpr std::array<std::string_view, 4> kNames<Packing>{"none", "bfd", "bfd_split",
                                                                 "wrapped"};
template <>
inline constexpr std::array<std::string_view, 4> kNames<LossOn>{"auto", "all", "completion",
                                                                "assistant"};
template <>
inline constexpr std::array<std::string_view, 2> kNames<OnBadRow>{"error", "skip"};
template <>
inline constexpr std::array<std::string_view, 5> kNames<OnLongRow>{"auto", "truncate", "split",
                                                                   "drop", "error"};
template <>
inline constexpr std::array<std::string_view, 3> kNames<ActivationCheckpointing>{"none", "full",
                                                                                 "selective"};
template <>
inline constexpr std::array<std::string_view, 3> kNames<Float8>{"none", "tensorwise", "rowwise"};
template <>
inline constexpr std::array<std::string_view, 3> kNames<Device>{"auto", "cuda", "cpu"};
template <>
inline constexpr std::array<std::string_view, 2> kNames<OnNan>{"stop", "skip"};
template <>
inline constexpr std::array<std::string_view, 3> kNames<Backend>{"auto", "nccl", "mpi"};
template <>
inline constexpr std::array<std::string_view, 2> kNames<Offload>{"none", "optimizer"};

template <class Enum>
constexpr std::string_view name_of(Enum value) {
  return kNames<Enum>[static_cast<size_t>(value)];
}

}  // namespace temper::recipes
