#include <algorithm>
#include <deque>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/checkpoint/scratch.h"
#include "trainer/checkpoint/share_plan.h"
#include "trainer/checkpoint/state.h"

namespace temper::trainer {
namespace {

namespace fs = std::filesystem;

TrainState state_at(int64_t step) {
  const auto value = static_cast<float>(step);
  return {.tensors = {{"weights/a", at::full({3, 5}, value)},
                      {"weights/b", at::full({7}, value + 0.5f).to(at::kBFloat16)},
                      {"optimizer/exp_avg/a", at::full({3, 5}, -value)}},
          .scalars = {{"step", step}, {"loss", 0.1 + value}}};
}

NamedTensors blank() {
  NamedTensors tensors = state_at(0).tensors;
  for (auto& named : tensors) named.second.zero_();
  return tensors;
}

/// The ranks of a world, each with its writer, in one process.
class World {
 public:
  World(fs::path directory, int ranks, bool async = true) {
    for (int rank = 0; rank < ranks; ++rank) writers_.emplace_back(directory, rank, ranks, async);
  }
  void begin(int64_t step) {
    for (CheckpointWriter& writer : writers_) writer.begin(step, state_at(step));
    for (CheckpointWriter& writer : writers_) writer.wait();
  }
  void save(int64_t step, int64_t keep = 2, std::optional<int64_t> best = std::nullopt) {
    begin(step);
    for (CheckpointWriter& writer : writers_) {
      EXPECT_TRUE(writer.rank_done());
      writer.commit(keep, best);
      EXPECT_FALSE(writer.pending());
    }
  }

 private:
  std::deque<CheckpointWriter> writers_;
};

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

class Checkpoint : public testing::Test {
 protected:
  const Scratch scratch_;
  const fs::path path_ = scratch_ / "checkpoints";
};

TEST_F(Checkpoint, HoldsOneFileARankAStateAndAManifest) {
  World(path_, 3).save(200);
  EXPECT_EQ(names_in(path_), std::vector<std::string>{"step-000200"});
  EXPECT_EQ(
      names_in(path_ / "step-000200"),
      (std::vector<std::string>{"manifest.json", "rank-00000.safetensors", "rank-00001.safetensors",
                                "rank-00002.safetensors", "state.json"}));
  EXPECT_EQ(checkpoint_damage(path_ / "step-000200"), "");
}

TEST_F(Checkpoint, WrittenByAnyNumberOfRanksIsLoadedInPlace) {
  for (const int ranks : {1, 2, 8}) {
    for (const bool async : {true, false}) {
      World(path_, ranks, async).save(7);
      const NamedTensors tensors = blank();
      const data::Json scalars = load_checkpoint(path_ / "step-000007", tensors);
      EXPECT_EQ(scalars.at("step"), 7);
      EXPECT_EQ(scalars.at("loss").get<double>(), 0.1 + 7.0f);
      const TrainState expected = state_at(7);
      for (size_t i = 0; i < tensors.size(); ++i) {
        EXPECT_TRUE(at::equal(tensors[i].second, expected.tensors[i].second)) << tensors[i].first;
      }
      EXPECT_EQ(read_checkpoint(path_ / "step-000007").size(), 3u);
    }
  }
}

// Element i of a tensor [3, 5] is i, cut at `ends`.
std::vector<NamedTensors> pieces(const std::vector<int64_t>& ends) {
  std::vector<NamedTensors> made;
  int64_t begin = 0;
  for (const int64_t end : ends) {
    const std::string range = "[" + std::to_string(begin) + ":" + std::to_string(end) + " of 3,5]";
    made.push_back({{"weights/a" + range, at::arange(begin, end, at::kFloat)}});
    begin = end;
  }
  return made;
}

void save_pieces(const fs::path& directory, const std::vector<NamedTensors>& of_ranks) {
  std::deque<CheckpointWriter> writers;
  const int ranks = static_cast<int>(of_ranks.size());
  for (int rank = 0; rank < ranks; ++rank) {
    TrainState state = state_at(7);
    std::erase_if(state.tensors, [](const auto& named) { return named.first == "weights/a"; });
    state.tensors.insert(state.tensors.begin(), of_ranks[rank].begin(), of_ranks[rank].end());
    writers.emplace_back(directory, rank, ranks, true).begin(7, state);
  }
  for (CheckpointWriter& writer : writers) writer.wait();
  for (CheckpointWriter& writer : writers) writer.commit(1, std::nullopt);
}

TEST_F(Checkpoint, MakesTensorsWholeOfPiecesAndPiecesOfOthers) {
  for (const std::vector<int64_t>& written : {std::vector<int64_t>{15}, {4, 9, 15}, {1, 15}}) {
    save_pieces(path_, pieces(written));
    const NamedTensors whole = blank();
    load_checkpoint(path_ / "step-000007", whole);
    EXPECT_TRUE(at::equal(whole[0].second, at::arange(15, at::kFloat).view({3, 5})));
    EXPECT_TRUE(at::equal(whole[2].second, state_at(7).tensors[2].second));
    for (const NamedTensors& expected : pieces({6, 7, 15})) {
      const NamedTensors piece = {{expected[0].first, at::zeros_like(expected[0].second)}};
      load_checkpoint(path_ / "step-000007", piece);
      EXPECT_TRUE(at::equal(piece[0].second, expected[0].second)) << expected[0].first;
    }
  }
}

TEST_F(Checkpoint, IsLoadedIntoTensorsThatLieTurned) {
  save_pieces(path_, pieces({4, 9, 15}));
  const NamedTensors turned = {{"weights/a", at::zeros({5, 3}).t()}};
  load_checkpoint(path_ / "step-000007", turned);
  EXPECT_TRUE(at::equal(turned[0].second, at::arange(15, at::kFloat).view({3, 5})));
}

TEST_F(Checkpoint, CutsWholeTensorsIntoPieces) {
  World(path_, 2).save(7);
  const NamedTensors piece = {{"weights/a[4:9 of 3,5]", at::zeros({5})}};
  load_checkpoint(path_ / "step-000007", piece);
  EXPECT_TRUE(at::equal(piece[0].second, at::full({5}, 7.0f)));
}

TEST_F(Checkpoint, NamesATensorWhosePiecesAreNotAllThere) {
  save_pieces(path_, {pieces({4, 9, 15})[0], pieces({4, 9, 15})[2]});
  try {
    load_checkpoint(path_ / "step-000007", blank());
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("tensor 'weights/a': has pieces missing"),
              std::string::npos)
        << error.what();
  }
}

TEST_F(Checkpoint, HoldsWhatTheStateWasWhenItBeganNotWhatItBecame) {
  CheckpointWriter writer(path_, 0, 1, true);
  const TrainState state = state_at(1);
  for (int64_t step = 1; step <= 3; ++step) {  // the buffers are used again
    for (const auto& named : state.tensors) named.second.fill_(static_cast<double>(step));
    writer.begin(step, state);
    for (const auto& named : state.tensors) named.second.fill_(-1);
    writer.wait();
    writer.commit(5, std::nullopt);
    const NamedTensors tensors = blank();
    load_checkpoint(path_ / ("step-00000" + std::to_string(step)), tensors);
    for (const auto& named : tensors)
      EXPECT_EQ(named.second.max().item<double>(), step) << named.first;
  }
}

TEST_F(Checkpoint, KeepsTheNewestAndTheBest) {
  World world(path_, 2);
  for (const int64_t step : {10, 20, 30, 40}) world.save(step, 2, 10);
  EXPECT_EQ(names_in(path_),
            (std::vector<std::string>{"best", "step-000010", "step-000030", "step-000040"}));
  EXPECT_EQ(fs::read_symlink(path_ / "best"), "step-000010");
  world.save(50, 2, 50);
  EXPECT_EQ(names_in(path_), (std::vector<std::string>{"best", "step-000040", "step-000050"}));
  EXPECT_EQ(fs::read_symlink(path_ / "best"), "step-000050");
  EXPECT_EQ(checkpoint_damage(path_ / "best"), "");
}

TEST_F(Checkpoint, ABestThatIsNoLongerWantedLeavesNoLinkToNothing) {
  World world(path_, 1);
  world.save(10, 1, 10);
  world.save(20, 1);
  EXPECT_EQ(names_in(path_), std::vector<std::string>{"step-000020"});
}

TEST_F(Checkpoint, OneThatWasNeverCommittedIsNeverSeenAndIsRemovedLater) {
  World world(path_, 2);
  world.begin(10);  // killed here
  EXPECT_EQ(names_in(path_), std::vector<std::string>{"step-000010.partial"});
  EXPECT_FALSE(find_checkpoint(path_));
  World(path_, 1).save(20);
  EXPECT_EQ(names_in(path_), std::vector<std::string>{"step-000020"});
}

TEST_F(Checkpoint, APartialOneOfMoreRanksLeavesNothingInItsSuccessor) {
  World(path_, 4).begin(10);
  World(path_, 2).save(10);
  EXPECT_EQ(names_in(path_ / "step-000010").size(), 4u);
  EXPECT_EQ(checkpoint_damage(path_ / "step-000010"), "");
}

TEST_F(Checkpoint, ALaterOneThatOtherRanksHaveBegunSurvivesTheCommit) {
  CheckpointWriter first(path_, 0, 2, true), second(path_, 1, 2, true);
  first.begin(10, state_at(10));
  second.begin(10, state_at(10));
  first.wait();
  second.wait();
  second.commit(2, std::nullopt);
  second.begin(20, state_at(20));
  second.wait();
  first.commit(2, std::nullopt);
  first.begin(20, state_at(20));
  first.wait();
  second.commit(2, std::nullopt);
  first.commit(2, std::nullopt);
  EXPECT_EQ(find_checkpoint(path_)->step, 20);
}

TEST_F(Checkpoint, FindPassesOverDamageAndSaysWhy) {
  World world(path_, 2);
  for (const int64_t step : {10, 20, 30}) world.save(step, 3);
  fs::resize_file(path_ / "step-000030/rank-00001.safetensors", 40);
  std::string bytes = read_all(path_ / "step-000020/rank-00000.safetensors");
  bytes.back() ^= 1;
  write_all(path_ / "step-000020/rank-00000.safetensors", bytes);
  const auto found = find_checkpoint(path_);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->step, 10);
  EXPECT_EQ(found->directory, path_ / "step-000010");
  ASSERT_EQ(found->damaged.size(), 2u);
  EXPECT_NE(found->damaged[0].find("step-000030/rank-00001.safetensors: has 40 bytes, must have"),
            std::string::npos)
      << found->damaged[0];
  EXPECT_NE(found->damaged[1].find("step-000020/rank-00000.safetensors: its checksum differs"),
            std::string::npos)
      << found->damaged[1];
}

TEST_F(Checkpoint, OneThatWasPassedOverIsReplacedWhenItsStepComesAgain) {
  World world(path_, 1);
  world.save(10);
  world.save(20);
  fs::remove(path_ / "step-000020/state.json");
  world.save(15);  // counts 10 and 15 alone
  EXPECT_EQ(names_in(path_),
            (std::vector<std::string>{"step-000010", "step-000015", "step-000020"}));
  world.save(20);
  EXPECT_EQ(names_in(path_), (std::vector<std::string>{"step-000015", "step-000020"}));
  EXPECT_EQ(find_checkpoint(path_)->step, 20);
}

TEST_F(Checkpoint, WhereNoneIsUsableEveryReasonIsGiven) {
  World world(path_, 1);
  world.save(10);
  world.save(20);
  for (const char* name : {"step-000010", "step-000020"})
    fs::remove(path_ / name / "rank-00000.safetensors");
  try {
    find_checkpoint(path_);
    FAIL();
  } catch (const UserError& error) {
    ASSERT_EQ(error.lines().size(), 3u);
    EXPECT_NE(error.lines()[0].find("step-000020/rank-00000.safetensors: is missing"),
              std::string::npos);
    EXPECT_NE(error.lines()[2].find("run.overwrite=true"), std::string::npos);
  }
}

TEST_F(Checkpoint, ADirectoryWithoutAnyIsNoError) {
  EXPECT_FALSE(find_checkpoint(path_));
  fs::create_directories(path_ / "step-x");
  EXPECT_FALSE(find_checkpoint(path_));
}

TEST_F(Checkpoint, EveryFlippedBitAndEveryCutIsDamage) {
  World(path_, 2).save(5);
  const fs::path directory = path_ / "step-000005";
  for (const std::string& name : names_in(directory)) {
    const std::string whole = read_all(directory / name);
    if (name != "manifest.json") {
      for (size_t i = 0; i < whole.size(); i += 11) {
        std::string flipped = whole;
        flipped[i] ^= 0x10;
        write_all(directory / name, flipped);
        EXPECT_NE(checkpoint_damage(directory), "") << name << " byte " << i;
      }
    }
    for (size_t size = 0; size < whole.size() - 1; size += 7) {
      write_all(directory / name, whole.substr(0, size));
      EXPECT_NE(checkpoint_damage(directory), "") << name << " cut to " << size;
    }
    write_all(directory / name, whole);
    EXPECT_EQ(checkpoint_damage(directory), "");
    fs::rename(directory / name, path_ / "away");
    EXPECT_NE(checkpoint_damage(directory), "") << name << " missing";
    fs::rename(path_ / "away", directory / name);
  }
  fs::rename(directory, path_ / "step-000006");
  EXPECT_NE(checkpoint_damage(path_ / "step-000006").find("is of step 5"), std::string::npos);
}

TEST_F(Checkpoint, TensorsThatDoNotFitAreAllNamed) {
  World(path_, 2).save(5);
  try {
    load_checkpoint(path_ / "step-000005", {{"weights/a", at::zeros({5, 3})},
                                            {"weights/b", at::zeros({7})},
                                            {"weights/c", at::zeros({1})}});
    FAIL();
  } catch (const UserError& error) {
    ASSERT_EQ(error.lines().size(), 3u);
    EXPECT_NE(error.lines()[0].find("'weights/a': is [3,5], must be [5,3]"), std::string::npos);
    EXPECT_NE(error.lines()[1].find("'weights/b': is BF16, must be F32"), std::string::npos);
    EXPECT_NE(error.lines()[2].find("'weights/c': is missing"), std::string::npos);
  }
}

TEST_F(Checkpoint, WhatTheWritingThreadThrewComesOutOnceAndTheOldOneStays) {
  World(path_, 1).save(10);
  fs::create_directories(path_ /
                         "step-000020.partial/rank-00000.safetensors");  // in the way of the file
  CheckpointWriter writer(path_, 0, 1, true);
  writer.begin(20, state_at(20));
  EXPECT_THROW(writer.wait(), RunError);
  EXPECT_FALSE(writer.rank_done());
  EXPECT_EQ(find_checkpoint(path_)->step, 10);
  writer.begin(30, state_at(30));
  writer.wait();
  writer.commit(2, std::nullopt);
  EXPECT_EQ(names_in(path_), (std::vector<std::string>{"step-000010", "step-000030"}));
}

TEST_F(Checkpoint, AnUnwritableDirectoryIsARunError) {
  write_all(scratch_ / "file", "");
  CheckpointWriter writer(scratch_ / "file" / "checkpoints", 0, 1, true);
  EXPECT_THROW(writer.begin(1, state_at(1)), RunError);
}

TEST(SharePlan, SpreadsBytesEvenlyOverAThousandRanks) {
  std::vector<uint64_t> bytes;
  for (uint64_t i = 0; i < 5000; ++i) bytes.push_back(1000 + i * 7919 % 1000);
  const std::vector<int> owner = share_plan(bytes, 1024);
  std::vector<uint64_t> load(1024);
  for (size_t i = 0; i < bytes.size(); ++i) load[static_cast<size_t>(owner[i])] += bytes[i];
  const auto [least, most] = std::minmax_element(load.begin(), load.end());
  EXPECT_LE(*most - *least, 2000u);
}

TEST(SharePlan, PutsTheLargestFirstAndBreaksTiesByRank) {
  EXPECT_EQ(share_plan({1, 5, 3, 2}, 2), (std::vector<int>{0, 0, 1, 1}));
  EXPECT_EQ(share_plan({4, 4, 4}, 4), (std::vector<int>{0, 1, 2}));
  EXPECT_TRUE(share_plan({}, 3).empty());
}

}  // namespace
}  // namespace temper::trainer
