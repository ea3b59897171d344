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
