#include "recipes/rendezvous.h"

#include <gtest/gtest.h>

#include "tests/recipes/recipe_files.h"

namespace temper::recipes {
namespace {

TEST(Rendezvous, HasThreeForms) {
  EXPECT_EQ(read_rendezvous("mpi")->kind, Rendezvous::Kind::kMpi);
  const auto tcp = read_rendezvous("tcp://node1:29500");
  ASSERT_TRUE(tcp.has_value());
  EXPECT_EQ(tcp->kind, Rendezvous::Kind::kTcp);
  EXPECT_EQ(tcp->host, "node1");
  EXPECT_EQ(tcp->port, 29500);
  EXPECT_EQ(read_rendezvous("tcp://[fe80::1]:1")->host, "fe80::1");
  const auto file = read_rendezvous("file:///shared/run 7/ranks");
  ASSERT_TRUE(file.has_value());
  EXPECT_EQ(file->kind, Rendezvous::Kind::kFile);
  EXPECT_EQ(file->file, "/shared/run 7/ranks");
}

TEST(Rendezvous, IsNothingElse) {
  for (const char* text : {"", "MPI", "tcp://", "tcp://node1", "tcp://node1:", "tcp://:29500",
                           "tcp://node1:0", "tcp://node1:65536", "tcp://node1:29500x",
                           "tcp://node1:-1", "tcp://fe80::1:29500", "tcp://node1:29500/path",
                           "file://", "file://relative", "file:///directory/", "node1:29500"}) {
    EXPECT_FALSE(read_rendezvous(text).has_value()) << text;
  }
}

TEST(Peek, ReadsWhatIsWrittenAndJudgesNothing) {
  const RecipeFiles files;
  files.write("base.toml", "[parallel]\nrendezvous = \"tcp://node1:29500\"\n");
  const auto file =
      files.write("r.toml", "extends = \"base.toml\"\n[optimizer]\nlr = \"fast\"\nbeta = 1\n");
  EXPECT_EQ(peek(file, {}).parallel.rendezvous, "tcp://node1:29500");
  EXPECT_EQ(peek(file, {"parallel.rendezvous=file:///ranks"}).parallel.rendezvous, "file:///ranks");
  EXPECT_EQ(peek(files.path("none.toml"), {}).parallel.rendezvous, "mpi");
  EXPECT_EQ(peek(files.write("broken.toml", "[parallel"), {}).parallel.rendezvous, "mpi");
}

}  // namespace
}  // namespace temper::recipes
