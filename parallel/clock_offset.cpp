#include "parallel/clock_offset.h"

#include <chrono>
#include <limits>

#include <ATen/ATen.h>

#include "parallel/communicator.h"

namespace temper::parallel {

namespace {

constexpr int kRounds = 10;
constexpr int kTag = 0;

template <typename Clock>
double seconds_of() {
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

}  // namespace

double steady_seconds() { return seconds_of<std::chrono::steady_clock>(); }
double system_seconds() { return seconds_of<std::chrono::system_clock>(); }

double clock_offset(Communicator& communicator, double (*now)()) {
  at::Tensor message = at::zeros({1}, at::kDouble);
  double& value = *message.mutable_data_ptr<double>();
  if (communicator.rank() != 0) {
    for (int round = 0; round < kRounds; ++round) {
      communicator.receive(message, 0, kTag)->wait();
      value = now();
      communicator.send(message, 0, kTag)->wait();
    }
    communicator.receive(message, 0, kTag)->wait();
    return value;
  }
  for (int rank = 1; rank < communicator.size(); ++rank) {
    double quickest = std::numeric_limits<double>::infinity();
    double offset = 0;
    for (int round = 0; round < kRounds; ++round) {
      const double begin = now();
      communicator.send(message, rank, kTag)->wait();
      communicator.receive(message, rank, kTag)->wait();
      const double end = now();
      if (end - begin >= quickest) continue;
      quickest = end - begin;
      offset = value - (begin + end) / 2;
    }
    value = offset;
    communicator.send(message, rank, kTag)->wait();
  }
  return 0;
}

}  // namespace temper::parallel
