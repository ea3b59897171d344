#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "parallel/mesh.h"
#include "tests/parallel/mpi_main.h"

namespace temper::parallel {

namespace {

TEST(Mesh, GroupsAddUpAlongTheirAxisAlone) {
  Communicator& world = test_group();
  recipes::Parallel parallel;
  parallel.tensor = 2;
  const MeshShape shape = mesh_shape(parallel, world.size());
  const Mesh mesh(shape, world);
  for (size_t i = 0; i < kAxes; ++i) {
    const Axis axis = static_cast<Axis>(i);
    Communicator& group = mesh.group(axis);
    EXPECT_EQ(group.size(), shape.size_of(axis));
    EXPECT_EQ(group.rank(), mesh.coordinate(axis));
    at::Tensor sum = at::full({1}, world.rank(), at::kLong);
    group.all_reduce(sum)->wait();
    int64_t expected = 0;
    for (const int64_t rank : ranks_along(shape, world.rank(), axis)) expected += rank;
    EXPECT_EQ(sum.item<int64_t>(), expected) << name_of(axis);
  }
}

}  // namespace

}  // namespace temper::parallel
