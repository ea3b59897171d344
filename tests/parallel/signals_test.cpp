#include "launch/signals.h"

#include <csignal>

#include <gtest/gtest.h>

namespace temper::launch {

namespace {

/// A process of its own, since a request to stop is never taken back.
void expect_exit(int code, void (*body)()) {
  EXPECT_EXIT(
      {
        install_signal_handlers();
        if (stop_signal() != 0) std::_Exit(1);
        body();
        std::_Exit(stop_signal());
      },
      testing::ExitedWithCode(code), "");
}

TEST(Signals, TermUsr1AndTheFirstIntAskForAStop) {
  expect_exit(SIGTERM, [] { std::raise(SIGTERM); });
  expect_exit(SIGUSR1, [] { std::raise(SIGUSR1); });
  expect_exit(SIGINT, [] { std::raise(SIGINT); });
  expect_exit(0, [] {});
}

TEST(Signals, ASecondIntEndsAtOnce) {
  expect_exit(130, [] {
    std::raise(SIGINT);
    std::raise(SIGINT);
  });
}

TEST(Signals, TermMayComeTwice) {
  expect_exit(SIGTERM, [] {
    std::raise(SIGTERM);
    std::raise(SIGTERM);
  });
}

}  // namespace

}  // namespace temper::launch
