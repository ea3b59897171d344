#include "launch/source.h"

#include <fstream>

#include <unistd.h>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::launch {
namespace {

namespace fs = std::filesystem;

class SourceTest : public testing::Test {
 protected:
  SourceTest()
      : root_(fs::temp_directory_path() / ("temper-source-" + std::to_string(::getpid()))) {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  ~SourceTest() override { fs::remove_all(root_); }

  fs::path file(const std::string& name, const std::string& content = "{}") {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << content;
    return root_ / name;
  }

  std::string refusal(const fs::path& path) {
    try {
      resolve_source(path, RunMeans::kExport);
    } catch (const UserError& error) {
      return error.what();
    }
    return "accepted";
  }

  fs::path root_;
};

TEST_F(SourceTest, AModelDirectoryIsItself) {
  file("model/config.json");
  const Source source = resolve_source(root_ / "model", RunMeans::kExport);
  EXPECT_EQ(source.kind, Source::Kind::kModel);
  EXPECT_EQ(source.weights, root_ / "model");
}

TEST_F(SourceTest, ARunMeansItsExportWhereThatIsWanted) {
  file("run/recipe.toml", "");
  file("run/export/config.json");
  EXPECT_EQ(resolve_source(root_ / "run", RunMeans::kExport).weights, root_ / "run/export");
}

TEST_F(SourceTest, ARunWithoutACompleteCheckpointIsRefused) {
  file("run/recipe.toml", "");
  fs::create_directories(root_ / "run/checkpoints");
  EXPECT_EQ(refusal(root_ / "run"),
            (root_ / "run").string() + ": a run without a complete checkpoint yet");
}

TEST_F(SourceTest, AMissingDirectoryAndAFileAreRefused) {
  EXPECT_NE(refusal(root_ / "nowhere").find("nowhere: no such directory; give a model"),
            std::string::npos);
  EXPECT_NE(refusal(file("a.txt")).find("a.txt: not a directory; give a model"), std::string::npos);
}

TEST_F(SourceTest, AnAdapterNeedsTheBaseThatItNames) {
  file("adapter/adapter_config.json", R"({"base_model_name_or_path": "gone"})");
  EXPECT_NE(refusal(root_ / "adapter").find("\"gone\" is no model directory here"),
            std::string::npos);
}

TEST_F(SourceTest, SomeOtherDirectoryIsRefused) {
  file("other/readme.md");
  EXPECT_NE(refusal(root_ / "other").find("neither a model"), std::string::npos);
}

TEST_F(SourceTest, OnlyTokenizerFilesAreEnoughForATokenizer) {
  file("tokenizer/tokenizer.json");
  EXPECT_EQ(tokenizer_files(root_ / "tokenizer").directory, root_ / "tokenizer");
}

}  // namespace
}  // namespace temper::launch
