#include "parallel/mesh.h"

#include <functional>
#include <numeric>
#include <string>

#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

constexpr std::array<const char*, kAxes> kNames = {"pipeline", "replicate", "shard",
                                                   "expert",   "context",   "tensor"};

int64_t product(const MeshIndex& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

/// "shard 2 x tensor 4", without axes of one.
std::string describe(const MeshIndex& sizes) {
  std::vector<std::string> parts;
  for (size_t axis = 0; axis < kAxes; ++axis) {
    if (sizes[axis] > 1)
      parts.push_back(std::string(kNames[axis]) + " " + std::to_string(sizes[axis]));
  }
  return parts.empty() ? "1" : join(parts, " x ");
}

}  // namespace

const char* name_of(Axis axis) { return kNames[static_cast<size_t>(axis)]; }

int64_t MeshShape::ranks() const { return product(sizes); }

MeshShape mesh_shape(const recipes::Parallel& parallel, int64_t world_size) {
  MeshIndex sizes = {parallel.pipeline, parallel.replicate.value_or(1),
                     parallel.shard,    parallel.expert,
                     parallel.context,  parallel.tensor};
  const int64_t named = product(sizes);
  if (!parallel.replicate) {
    if (named == 0 || world_size % named != 0) {
      throw UserError("parallel: " + describe(sizes) + " does not divide the world of " +
                      std::to_string(world_size) + " ranks; start a multiple of " +
                      std::to_string(named) + " ranks or change [parallel]");
    }
    sizes[static_cast<size_t>(Axis::kReplicate)] = world_size / named;
  } else if (named != world_size) {
    throw UserError("parallel: " + describe(sizes) + " makes " + std::to_string(named) +
                    " ranks, but the world has " + std::to_string(world_size) + "; start " +
                    std::to_string(named) + " ranks or set parallel.replicate = \"auto\"");
  }
  return {sizes};
}

MeshIndex coordinates_of(const MeshShape& shape, int64_t rank) {
  MeshIndex coordinates;
  for (size_t axis = kAxes; axis-- > 0;) {
    coordinates[axis] = rank % shape.sizes[axis];
    rank /= shape.sizes[axis];
  }
  return coordinates;
}

int64_t rank_at(const MeshShape& shape, const MeshIndex& coordinates) {
  int64_t rank = 0;
  for (size_t axis = 0; axis < kAxes; ++axis) rank = rank * shape.sizes[axis] + coordinates[axis];
  return rank;
}

std::vector<int64_t> ranks_along(const MeshShape& shape, int64_t rank, Axis axis) {
  MeshIndex coordinates = coordinates_of(shape, rank);
  std::vector<int64_t> ranks(shape.size_of(axis));
  for (size_t i = 0; i < ranks.size(); ++i) {
    coordinates[static_cast<size_t>(axis)] = static_cast<int64_t>(i);
    ranks[i] = rank_at(shape, coordinates);
  }
  return ranks;
}

Mesh::Mesh(const MeshShape& shape, Communicator& world)
    : shape_(shape), coordinates_(coordinates_of(shape, world.rank())) {
  TEMPER_CHECK(shape.ranks() == world.size(), "a mesh of another world");
  for (size_t i = 0; i < kAxes; ++i) {
    const Axis axis = static_cast<Axis>(i);
    if (shape.size_of(axis) == world.size() && world.size() > 1) {
      groups_[i] = &world;
    } else if (shape.size_of(axis) == 1) {
      groups_[i] = owned_.emplace_back(make_solo_communicator()).get();
    } else {
      const int64_t first = ranks_along(shape, world.rank(), axis).front();
      groups_[i] = owned_
                       .emplace_back(world.split(static_cast<int>(first),
                                                 static_cast<int>(coordinate(axis)), name_of(axis)))
                       .get();
    }
  }
}

}  // namespace temper::parallel
