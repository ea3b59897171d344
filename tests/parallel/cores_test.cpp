#include "parallel/cores.h"

#include <cstdlib>
#include <thread>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

using Cores = std::vector<int>;

TEST(CoreList, ReadsNumbersAndRuns) {
  EXPECT_EQ(parse_core_list("0-1,3", "TEMPER_CORES"), (Cores{0, 1, 3}));
  EXPECT_EQ(parse_core_list("5", "TEMPER_CORES"), (Cores{5}));
  EXPECT_EQ(parse_core_list("3,1-2,2", "TEMPER_CORES"), (Cores{1, 2, 3}));
}

TEST(CoreList, RefusesWhatIsNoList) {
  for (const char* text : {"", "a", "1-", "-1", "2-1", "1,", "1,,2", "1 2", "99999", "0x1"}) {
    try {
      parse_core_list(text, "TEMPER_CORES");
      FAIL() << "'" << text << "' was taken";
    } catch (const UserError& error) {
      EXPECT_EQ(std::string(error.what()),
                "TEMPER_CORES = '" + std::string(text) + "': must be a list of cores like 0-1,3");
    }
  }
}

TEST(CoreList, IsWrittenAsItIsRead) {
  EXPECT_EQ(format_core_list({0, 1, 3}), "0-1,3");
  EXPECT_EQ(format_core_list({7}), "7");
  EXPECT_EQ(format_core_list({}), "");
}

TEST(CoresOfRank, EqualSetsAreSharedOutWithoutOverlap) {
  const std::vector<Cores> allowed(2, Cores{0, 1, 2, 3, 4});
  EXPECT_EQ(cores_of_rank(allowed, 0).size() + cores_of_rank(allowed, 1).size(), 5U);
  for (const int core : cores_of_rank(allowed, 0)) {
    for (const int other : cores_of_rank(allowed, 1)) EXPECT_NE(core, other);
  }
}

TEST(CoresOfRank, MoreRanksThanCoresTakeTurns) {
  const std::vector<Cores> allowed(4, Cores{0, 1});
  EXPECT_EQ(cores_of_rank(allowed, 0), Cores{0});
  EXPECT_EQ(cores_of_rank(allowed, 1), Cores{1});
  EXPECT_EQ(cores_of_rank(allowed, 2), Cores{0});
  EXPECT_EQ(cores_of_rank(allowed, 3), Cores{1});
}

TEST(CoresOfRank, SetsThatDifferAreKept) {
  const std::vector<Cores> allowed = {{0, 1}, {2, 3}};
  EXPECT_EQ(cores_of_rank(allowed, 0), (Cores{0, 1}));
  EXPECT_EQ(cores_of_rank(allowed, 1), (Cores{2, 3}));
}

TEST(AllowedCores, AreThoseOfTheEnvironmentWhereItSaysSo) {
  setenv("TEMPER_CORES", "1,4-5", 1);
  EXPECT_EQ(allowed_cores(true), (Cores{1, 4, 5}));
  EXPECT_EQ(allowed_cores(false), (Cores{1, 4, 5}));
  unsetenv("TEMPER_CORES");
}

TEST(AllowedCores, UnderMpirunAnInheritedBindingDoesNotCount) {
  std::thread([] {
    const Cores all = allowed_cores(false);
    ASSERT_TRUE(bind_to_cores({all.front()}));
    EXPECT_EQ(allowed_cores(false), Cores{all.front()});
    // No mpirun among our ancestors here: what the cgroup allows.
    const Cores unbound = allowed_cores(true);
    EXPECT_GE(unbound.size(), all.size());
    EXPECT_EQ(allowed_cores(false), Cores{all.front()}) << "looking has changed the binding";
  }).join();
}

TEST(BindToCores, RefusesCoresThatAreNotThere) {
  std::thread([] { EXPECT_FALSE(bind_to_cores({1023})); }).join();
}

}  // namespace

}  // namespace temper::parallel
