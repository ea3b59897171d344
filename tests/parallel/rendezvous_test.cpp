#include "parallel/store/rendezvous.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <unistd.h>

#include <gtest/gtest.h>

#include "parallel/store/meeting.h"
#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

namespace fs = std::filesystem;

/// What `call` says where it is refused.
std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

std::unique_ptr<KeyStore> open(const std::string& rendezvous, int rank, double seconds = 0.3) {
  return open_store(*recipes::read_rendezvous(rendezvous), rank, "node9", seconds);
}

/// What a rank knows when it has met the others. Rank 0's meeting serves them: it must outlive
/// their calls.
struct Met {
  World world;
  std::unique_ptr<Meeting> meeting;
};

/// Meets as rank `rank` of `size`.
Met meet(const std::string& rendezvous, int rank, int size, double seconds,
         const std::string& host = "node9") {
  Met met;
  met.world.host = host;
  std::vector<int> cores = {0, 1, 2, 3};
  met.meeting = meet_by_store(*recipes::read_rendezvous(rendezvous), {.rank = rank, .size = size},
                              met.world, cores, seconds);
  met.world.threads = static_cast<int>(cores.size());
  return met;
}

class RendezvousFile : public testing::Test {
 protected:
  RendezvousFile()
      : folder_(fs::temp_directory_path() / ("temper-rendezvous-" + std::to_string(getpid()))) {
    fs::create_directories(folder_);
  }
  ~RendezvousFile() override { fs::remove_all(folder_); }
  fs::path folder_;
  fs::path file_ = folder_ / "ranks";
  std::string url_ = "file://" + file_.string();
  std::string begin_ = "parallel.rendezvous = \"" + url_ + "\": ";
};

class Launcher : public testing::Test {
 protected:
  ~Launcher() override {
    for (const std::string& name : names_) unsetenv(name.c_str());
  }
  void set(const std::string& name, const std::string& value) {
    setenv(name.c_str(), value.c_str(), /*overwrite=*/1);
    names_.push_back(name);
  }
  std::vector<std::string> names_;
};

TEST_F(Launcher, NobodyIsAlone) { EXPECT_FALSE(place_by_launcher().has_value()); }

TEST_F(Launcher, SlurmsNumbersAndThoseOfOtherLaunchers) {
  set("SLURM_PROCID", "5");
  set("SLURM_STEP_NUM_TASKS", "8");
  set("SLURM_LOCALID", "1");
  auto place = place_by_launcher();
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->rank, 5);
  EXPECT_EQ(place->size, 8);
  EXPECT_EQ(place->local_rank, 1);
  // A launcher of its own comes first, as inside a task of Slurm's.
  set("RANK", "2");
  set("WORLD_SIZE", "3");
  place = place_by_launcher();
  EXPECT_EQ(place->rank, 2);
  EXPECT_EQ(place->size, 3);
  EXPECT_FALSE(place->local_rank.has_value());
  set("TEMPER_RANK", "0");
  set("TEMPER_WORLD_SIZE", "2");
  set("TEMPER_LOCAL_RANK", "0");
  place = place_by_launcher();
  EXPECT_EQ(place->size, 2);
  EXPECT_EQ(place->local_rank, 0);
}

TEST_F(Launcher, NumbersThatDoNotFitAreRefused) {
  set("RANK", "3");
  const std::string line =
      "RANK must be there and below WORLD_SIZE, so that ranks without MPI know their place";
  EXPECT_EQ(refusal([] { place_by_launcher(); }), line);
  set("WORLD_SIZE", "3");
  EXPECT_EQ(refusal([] { place_by_launcher(); }), line);
  set("WORLD_SIZE", "four");
  EXPECT_EQ(refusal([] { place_by_launcher(); }),
            "WORLD_SIZE = 'four': must be a whole number, at least 0");
}

TEST(RendezvousTcp, SaysInOneLineWhyRanksDoNotMeet) {
  const std::string unknown = "tcp://no-such-host.invalid:29500";
  for (const int rank : {0, 1}) {
    EXPECT_EQ(refusal([&] { open(unknown, rank); }),
              "parallel.rendezvous = \"" + unknown + "\": unknown host 'no-such-host.invalid'");
  }
  const auto served = KeyStore::serve(0);
  const std::string port = std::to_string(served->port());
  const std::string taken = "tcp://localhost:" + port;
  EXPECT_EQ(refusal([&] { open(taken, 0); }),
            "parallel.rendezvous = \"" + taken + "\": port " + port + " is in use here");
  const std::string free = std::to_string([] { return KeyStore::serve(0)->port(); }());
  const std::string silent = "tcp://localhost:" + free;
  EXPECT_EQ(refusal([&] { open(silent, 1); }),
            "parallel.rendezvous = \"" + silent +
                "\": nobody answers within 0.3 s (parallel.timeout): rank 0 does not run there");
  const std::string elsewhere = "tcp://192.0.2.1:" + free;  // an address for documents
  EXPECT_EQ(refusal([&] { open(elsewhere, 0); }),
            "parallel.rendezvous = \"" + elsewhere +
                "\": does not lead to rank 0, which runs on node9: name this host");
}

TEST_F(RendezvousFile, AFileOfAnEarlierRunIsPassedOver) {
  const int gone = KeyStore::serve(0)->port();
  std::ofstream(file_) << "node9 " << gone << " 123\n";
  EXPECT_EQ(refusal([&] { open(url_, 1); }),
            begin_ + "names node9:" + std::to_string(gone) +
                ", where rank 0 does not answer within 0.3 s (parallel.timeout): left from an "
                "earlier run (remove it), or node9 does not reach that host");
  // Another run has the port now.
  const auto other = KeyStore::serve(0);
  std::ofstream(file_) << "node9 " << other->port() << " 123\n";
  std::unique_ptr<KeyStore> joined;
  std::thread late([&] { joined = open(url_, 1, 60); });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const auto served = open(url_, 0);
  late.join();
  served->set("key", "value");
  ASSERT_TRUE(joined->wait({"key"}, 5));
}

TEST_F(RendezvousFile, SaysWhatIsWrongWithTheFile) {
  EXPECT_EQ(refusal([&] { open(url_, 1); }),
            begin_ +
                "is not there within 0.3 s (parallel.timeout): rank 0 has not started, or "
                "node9 does not see the directory that rank 0 writes to");
  const std::string nowhere = "file://" + (folder_ / "none" / "ranks").string();
  EXPECT_EQ(refusal([&] { open(nowhere, 0); }),
            "parallel.rendezvous = \"" + nowhere +
                "\": cannot be written on node9: No such file or directory");
}

TEST_F(RendezvousFile, RanksMeetAndKnowTheirHosts) {
  std::vector<Met> met(3);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 3; ++rank) {
    ranks.emplace_back(
        [&, rank] { met[rank] = meet(url_, rank, 3, 60, rank == 1 ? "node9" : "localhost"); });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(met[0].world.local_rank, 0);
  EXPECT_EQ(met[0].world.local_size, 2);
  EXPECT_EQ(met[1].world.local_rank, 0);
  EXPECT_EQ(met[1].world.local_size, 1);
  EXPECT_EQ(met[2].world.local_rank, 1);
  EXPECT_EQ(met[2].world.rank, 2);
  EXPECT_EQ(met[2].world.size, 3);
  EXPECT_EQ(met[1].world.threads, 4);
  EXPECT_EQ(met[2].world.threads, 2);  // the cores are shared with rank 0
  EXPECT_FALSE(fs::exists(file_)) << "left for a later run to find";
}

TEST_F(RendezvousFile, RanksThatDoNotComeAreNamed) {
  EXPECT_EQ(refusal([&] { meet(url_, 0, 3, 0.3); }),
            begin_ + "ranks 1, 2 of 3 did not come within 0.3 s (parallel.timeout)");
}

TEST_F(RendezvousFile, ARankThatIsThereTwiceIsRefused) {
  std::string lines[2];
  std::vector<std::thread> ranks;
  for (std::string& line : lines)
    ranks.emplace_back([&] { line = refusal([&] { meet(url_, 1, 3, 1); }); });
  EXPECT_EQ(refusal([&] { meet(url_, 0, 3, 2); }),
            begin_ + "rank 2 of 3 did not come within 2 s (parallel.timeout)");
  for (std::thread& rank : ranks) rank.join();
  EXPECT_NE(lines[0].find("rank 1 is there twice"), lines[1].find("rank 1 is there twice"));
}

}  // namespace

}  // namespace temper::parallel
