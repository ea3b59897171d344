#include "data/io/claim.h"

#include <chrono>

#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "tests/data/temporary_directory.h"

namespace temper::data {
namespace {

TEST(Claim, IsHeldByOneUntilItIsGivenUp) {
  const TemporaryDirectory directory;
  const std::filesystem::path lock = directory.path() / "a.lock";
  {
    const std::optional<Claim> mine = Claim::take(lock);
    ASSERT_TRUE(mine.has_value());
    EXPECT_FALSE(Claim::take(lock).has_value());
  }
  EXPECT_TRUE(Claim::take(lock).has_value());
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(Claim, OfADeadProcessOnThisHostIsTakenOver) {
  const TemporaryDirectory directory;
  const std::filesystem::path lock = directory.path() / "a.lock";
  const pid_t child = ::fork();
  if (child == 0) {
    const std::optional<Claim> claim = Claim::take(lock);
    ::_exit(claim ? 0 : 1);  // without giving it up
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  ASSERT_TRUE(std::filesystem::exists(lock));
  EXPECT_TRUE(Claim::take(lock).has_value());
}

TEST(Claim, OfAnotherHostIsTakenOverOnlyWhenItIsNoLongerRefreshed) {
  const TemporaryDirectory directory;
  const std::filesystem::path lock = directory.file("a.lock", "elsewhere 1 1\n");
  EXPECT_FALSE(Claim::take(lock).has_value());
  std::filesystem::last_write_time(
      lock, std::filesystem::file_time_type::clock::now() - std::chrono::minutes(3));
  EXPECT_TRUE(Claim::take(lock).has_value());
}

}  // namespace
}  // namespace temper::data
