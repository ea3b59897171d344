#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "parallel/communicator.h"
#include "parallel/world.h"

namespace temper::parallel {

namespace {

TEST(SoloCommunicator, CopiesOrDoesNothing) {
  const auto solo = make_solo_communicator();
  EXPECT_EQ(solo->size(), 1);
  at::Tensor tensor = at::arange(4);
  at::Tensor output = at::empty({1, 4}, at::kLong);
  solo->all_reduce(tensor)->wait();
  solo->broadcast(tensor, 0)->wait();
  EXPECT_TRUE(at::equal(tensor, at::arange(4)));
  solo->all_gather(output, tensor)->wait();
  EXPECT_TRUE(at::equal(output[0], tensor));
  EXPECT_TRUE(solo->all_to_all(output, tensor)->done());
  solo->barrier();
  EXPECT_EQ(solo->split(3, 0, "part")->name(), "part");
  EXPECT_THROW(solo->send(tensor, 0, 0), std::logic_error);
}

TEST(Session, WithoutALauncherIsOneRankAndNoMpi) {
  Session session = Session::start();
  EXPECT_EQ(session.world().size, 1);
  EXPECT_EQ(session.world().local_size, 1);
  EXPECT_FALSE(session.world().host.empty());
  session.use_threads(1);
  EXPECT_EQ(session.world().threads, 1);
  EXPECT_EQ(at::get_num_threads(), 1);
  EXPECT_EQ(session.broadcast_text("text"), "text");
  EXPECT_EQ(session.gather_text("text"), std::vector<std::string>{"text"});
  EXPECT_EQ(session.communicator(1)->size(), 1);
  testing::internal::CaptureStderr();
  EXPECT_EQ(session.agree_exit_code(2, "what is wrong"), 2);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "what is wrong\n");
  session.finish();
}

TEST(Session, OfSrunWithoutPmixIsRefusedWithTheWayOut) {
  setenv("SLURM_STEP_NUM_TASKS", "2", 1);
  try {
    Session::start();
    ADD_FAILURE() << "two ranks that know nothing of each other";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("srun --mpi=pmix"), std::string::npos);
  }
  // One task, or a batch script that srun did not start, is one rank.
  setenv("SLURM_STEP_NUM_TASKS", "1", 1);
  EXPECT_EQ(Session::start().world().size, 1);
  unsetenv("SLURM_STEP_NUM_TASKS");
  setenv("SLURM_NTASKS", "4", 1);
  EXPECT_EQ(Session::start().world().size, 1);
  unsetenv("SLURM_NTASKS");
}

}  // namespace

}  // namespace temper::parallel
