#include "parallel/store/key_store.h"

#include <thread>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

TEST(KeyStore, KeepsTheBytesOfEveryLength) {
  const auto served = KeyStore::serve(0);
  const auto joined = KeyStore::join("localhost", served->port());
  ASSERT_NE(joined, nullptr);
  const std::string zeros("a\0b", 3);
  const std::string piece(4 << 20, 'p');  // the longest that stays whole
  const std::string pieces((9 << 20) + 3, 'q');
  joined->set("empty", "");
  joined->set("zeros", zeros);
  joined->set("piece", piece);
  joined->set("pieces", pieces);
  const auto values = served->get({"pieces", "zeros", "empty", "piece"});
  EXPECT_EQ(values, (std::vector<std::string>{pieces, zeros, "", piece}));

  joined->remove("pieces", pieces.size());
  EXPECT_FALSE(served->has("pieces"));
  EXPECT_FALSE(served->has("pieces#2"));
  EXPECT_TRUE(served->has("piece"));
}

TEST(KeyStore, WaitsForAllKeysOrTheTime) {
  const auto served = KeyStore::serve(0);
  served->set("one", "");
  EXPECT_TRUE(served->wait({"one"}, 0.1));
  EXPECT_FALSE(served->wait({"one", "two"}, 0.1));
  std::thread late([port = served->port()] {
    const auto joined = KeyStore::join("localhost", port);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    joined->set("two", "");
    EXPECT_TRUE(joined->has("one"));
  });
  EXPECT_TRUE(served->wait({"one", "two"}, 30));
  late.join();
}

TEST(KeyStore, Counts) {
  const auto served = KeyStore::serve(0);
  EXPECT_EQ(served->count("n"), 1);
  EXPECT_EQ(served->count("n"), 2);
  served->remove("n", 0);
  EXPECT_EQ(served->count("n"), 1);
}

TEST(KeyStore, SaysThatRank0IsLost) {
  auto served = KeyStore::serve(0);
  const int port = served->port();
  const auto joined = KeyStore::join("localhost", port);
  served.reset();
  const std::string line = "rank 0 is lost: localhost:" + std::to_string(port) + " does not answer";
  for (const bool waits : {true, false}) {
    try {
      waits ? joined->wait({"anything"}, 30) : joined->has("anything");
      FAIL() << "nobody serves";
    } catch (const RunError& error) {
      EXPECT_EQ(error.what(), line);
    }
  }
}

TEST(KeyStore, APortServesOnce) {
  const auto served = KeyStore::serve(0);
  const std::string port = std::to_string(served->port());
  try {
    KeyStore::serve(served->port());
    FAIL() << "the port is taken";
  } catch (const UserError& error) {
    EXPECT_EQ(error.what(), "port " + port + " is in use here");
  }
}

}  // namespace

}  // namespace temper::parallel
