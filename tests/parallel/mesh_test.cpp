#include "parallel/mesh.h"

#include <set>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

std::string error_of(const recipes::Parallel& parallel, int64_t world_size) {
  try {
    mesh_shape(parallel, world_size);
    return "";
  } catch (const UserError& error) {
    return error.what();
  }
}

TEST(MeshShape, AutoReplicateTakesWhatIsLeftOfTheWorld) {
  recipes::Parallel parallel;
  parallel.shard = 2;
  parallel.tensor = 4;
  const MeshShape shape = mesh_shape(parallel, 1024);
  EXPECT_EQ(shape.size_of(Axis::kReplicate), 128);
  EXPECT_EQ(shape.ranks(), 1024);
  EXPECT_EQ(mesh_shape({}, 1).ranks(), 1);
}

TEST(MeshShape, RefusesAnotherWorldThanTheProductOfItsAxes) {
  recipes::Parallel parallel;
  parallel.shard = 2;
  parallel.tensor = 4;
  EXPECT_EQ(error_of(parallel, 12),
            "parallel: shard 2 x tensor 4 does not divide the world of 12 ranks; start a multiple "
            "of 8 ranks or change "
            "[parallel]");
  parallel.replicate = 3;
  EXPECT_EQ(error_of(parallel, 12),
            "parallel: replicate 3 x shard 2 x tensor 4 makes 24 ranks, but the world has 12; "
            "start 24 ranks or set "
            "parallel.replicate = \"auto\"");
  EXPECT_EQ(error_of(parallel, 24), "");
}

TEST(Mesh, NeighboursInRankAreNeighboursOnTheTensorAxis) {
  const MeshShape shape = {{2, 4, 4, 1, 4, 8}};
  EXPECT_EQ(coordinates_of(shape, 0), (MeshIndex{0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(coordinates_of(shape, 1), (MeshIndex{0, 0, 0, 0, 0, 1}));
  EXPECT_EQ(coordinates_of(shape, 8), (MeshIndex{0, 0, 0, 0, 1, 0}));
  EXPECT_EQ(coordinates_of(shape, 1023), (MeshIndex{1, 3, 3, 0, 3, 7}));
  EXPECT_EQ(ranks_along(shape, 9, Axis::kTensor),
            (std::vector<int64_t>{8, 9, 10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(ranks_along(shape, 9, Axis::kPipeline), (std::vector<int64_t>{9, 521}));
}

TEST(Mesh, OfAThousandRanksHasEachOnceAndGroupsThatAgree) {
  const MeshShape shape = {{2, 4, 4, 1, 4, 8}};
  ASSERT_EQ(shape.ranks(), 1024);
  std::set<MeshIndex> seen;
  for (int64_t rank = 0; rank < 1024; ++rank) {
    const MeshIndex coordinates = coordinates_of(shape, rank);
    EXPECT_TRUE(seen.insert(coordinates).second);
    EXPECT_EQ(rank_at(shape, coordinates), rank);
    for (size_t i = 0; i < kAxes; ++i) {
      const Axis axis = static_cast<Axis>(i);
      const std::vector<int64_t> group = ranks_along(shape, rank, axis);
      EXPECT_EQ(group[coordinates[i]], rank);
      for (const int64_t member : group) EXPECT_EQ(ranks_along(shape, member, axis), group);
    }
  }
}

}  // namespace

}  // namespace temper::parallel
