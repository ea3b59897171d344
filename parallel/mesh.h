#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/communicator.h"
#include "recipes/recipe.h"

/// The world as a box: every rank has a coordinate on each named axis, and talks along an axis with
/// the ranks that differ from it there alone.
///
/// Axes are listed from the outermost to the innermost: neighbours in rank, which sit on one host,
/// differ on the axis that talks most. The shape is a pure function of recipe and world size, so
/// that 1024 ranks are planned without starting one.
///
///     const MeshShape shape = mesh_shape(recipe.parallel, world.size);
///     Mesh mesh(shape, *communicator);
///     GradientReducer reducer(parameters, mesh.group(Axis::kReplicate), bucket_bytes);
namespace temper::parallel {

enum class Axis { kPipeline, kReplicate, kShard, kExpert, kContext, kTensor };
constexpr size_t kAxes = 6;
const char* name_of(Axis axis);

/// A number for each axis: sizes of a mesh, or coordinates of a rank.
using MeshIndex = std::array<int64_t, kAxes>;

struct MeshShape {
  MeshIndex sizes = {1, 1, 1, 1, 1, 1};
  int64_t size_of(Axis axis) const { return sizes[static_cast<size_t>(axis)]; }
  int64_t ranks() const;
};

/// Fills in `replicate = "auto"`. Throws UserError when the product of the axes is not the world
/// size.
MeshShape mesh_shape(const recipes::Parallel& parallel, int64_t world_size);

MeshIndex coordinates_of(const MeshShape& shape, int64_t rank);
int64_t rank_at(const MeshShape& shape, const MeshIndex& coordinates);

/// The ranks along `axis` through `rank`, in the order of their coordinate: the group that rank
/// talks to.
std::vector<int64_t> ranks_along(const MeshShape& shape, int64_t rank, Axis axis);

class Mesh {
 public:
  /// Collective over `world`, which outlives the mesh and has shape.ranks() ranks.
  Mesh(const MeshShape& shape, Communicator& world);

  const MeshShape& shape() const { return shape_; }
  int64_t coordinate(Axis axis) const { return coordinates_[static_cast<size_t>(axis)]; }
  /// This rank's group along `axis`; its rank in there is its coordinate.
  Communicator& group(Axis axis) const { return *groups_[static_cast<size_t>(axis)]; }

 private:
  MeshShape shape_;
  MeshIndex coordinates_;
  std::array<Communicator*, kAxes> groups_;
  std::vector<std::unique_ptr<Communicator>> owned_;
};

}  // namespace temper::parallel
