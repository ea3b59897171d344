#include "launch/signals.h"

#include <atomic>
#include <initializer_list>

#include <signal.h>
#include <unistd.h>

namespace temper::launch {

namespace {

constexpr int kInterruptedExitCode = 128 + SIGINT;

std::atomic<int> requested{0};
std::atomic<bool> interrupted{false};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may touch it");

void note(int signal) {
  if (signal == SIGINT && interrupted.exchange(true)) _exit(kInterruptedExitCode);
  requested = signal;
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action = {};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART;  // a read or write that is under way goes on
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGTERM, SIGUSR1, SIGINT}) sigaction(signal, &action, nullptr);
}

int stop_signal() { return requested; }

}  // namespace temper::launch
