#include <gtest/gtest.h>

#include "data/readers/reader.h"
#include "tests/data/temporary_directory.h"

namespace temper::data {
namespace {

std::string refusal(const std::string& path) {
  try {
    data_files(path);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

std::vector<std::string> names(const std::string& path) {
  std::vector<std::string> result;
  for (const auto& file : data_files(path)) result.push_back(file.filename().string());
  return result;
}

TEST(DataFiles, AGlobGivesItsMatchesSorted) {
  const TemporaryDirectory directory;
  directory.file("b.jsonl", "{}");
  directory.file("a.jsonl", "{}");
  directory.file("a.csv", "x");
  EXPECT_EQ(names(directory.path() / "*.jsonl"), (std::vector<std::string>{"a.jsonl", "b.jsonl"}));
}

TEST(DataFiles, ADirectoryGivesItsSupportedFiles) {
  const TemporaryDirectory directory;
  directory.file("b.txt", "x");
  directory.file("a.json.gz", "x");
  directory.file("README.md", "x");
  EXPECT_EQ(names(directory.path()), (std::vector<std::string>{"a.json.gz", "b.txt"}));
}

TEST(DataFiles, AHubDataSetGivesItsTrainingFiles) {
  const TemporaryDirectory directory;
  directory.file("dataset_infos.json", "{}");
  directory.file("data/train-00000-of-00002.parquet", "x");
  directory.file("data/train-00001-of-00002.parquet", "x");
  directory.file("data/test-00000-of-00001.parquet", "x");
  EXPECT_EQ(names(directory.path()), (std::vector<std::string>{"train-00000-of-00002.parquet",
                                                               "train-00001-of-00002.parquet"}));
}

TEST(DataFiles, KnowsTheLayoutsOfHubDataSets) {
  const std::vector<std::vector<std::string>> layouts = {
      {"train.csv", "test.csv"},
      {"my_dataset-train-0.jsonl", "my_dataset-validation-0.jsonl"},
      {"data/train/0.parquet", "data/test/0.parquet"},
      {"train/0.parquet", "validation/0.parquet"},
      {"default/train/0000.parquet", "default/test/0000.parquet"},
      {"default/train-0.parquet", "default/test-0.parquet"},
  };
  for (const std::vector<std::string>& layout : layouts) {
    const TemporaryDirectory directory;
    for (const std::string& file : layout) directory.file(file, "x");
    directory.file("README.md", "x");
    EXPECT_EQ(data_files(directory.path()),
              (std::vector<std::filesystem::path>{directory.path() / layout[0]}));
  }
}

TEST(DataFiles, FollowsTheLinksOfTheHubsCache) {
  const TemporaryDirectory directory;
  directory.file("blobs/0123", "{}");
  std::filesystem::create_directories(directory.path() / "snapshots/main/data");
  const auto link = directory.path() / "snapshots/main/data/train.jsonl";
  std::filesystem::create_symlink("../../../blobs/0123", link);
  EXPECT_EQ(data_files(directory.path() / "snapshots/main"),
            std::vector<std::filesystem::path>{link});
}

TEST(DataFiles, ADirectoryOfSeveralDataSetsNamesThem) {
  const TemporaryDirectory directory;
  directory.file("de/train.csv", "x");
  directory.file("en/train.csv", "x");
  directory.file("images/x.png", "x");
  const std::string path = directory.path().string();
  EXPECT_EQ(refusal(path),
            path + ": no data file in this directory; expected one of its data sets: " + path +
                "/de, " + path + "/en");
}

TEST(DataFiles, AMissingFileIsRefusedWithTheNearestName) {
  const TemporaryDirectory directory;
  directory.file("train.jsonl", "{}");
  EXPECT_NE(refusal(directory.path() / "trian.jsonl")
                .find("did you mean " + (directory.path() / "train.jsonl").string()),
            std::string::npos);
}

TEST(DataFiles, WhatHoldsNothingToReadIsRefused) {
  const TemporaryDirectory directory;
  directory.file("notes.doc", "x");
  EXPECT_NE(refusal(directory.path()).find("no data file in this directory"), std::string::npos);
  EXPECT_NE(refusal(directory.path() / "*.jsonl").find("no file matches"), std::string::npos);
  EXPECT_NE(refusal(directory.path() / "notes.doc").find("expected one of .jsonl, .json"),
            std::string::npos);
  EXPECT_NE(refusal(directory.path() / "none" / "x.jsonl").find("does not exist"),
            std::string::npos);
}

}  // namespace
}  // namespace temper::data
