#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace temper::parallel {

/// For calls of MPI that have no time-out and cannot be given up (MPI_Init, MPI_Comm_split,
/// MPI_Finalize): unless it is destroyed within `seconds`, the process ends with exit code 1 and
/// one line that says what has waited, and the launcher ends the others.
class Deadline {
 public:
  Deadline(std::string what, double seconds);
  ~Deadline();
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable over_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace temper::parallel
