#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace temper::trainer {

struct WorkerPoolOptions {
  std::string name;                    // in messages
  std::vector<std::string> arguments;  // the program and what follows it
  std::vector<std::string> environment;
  std::string command;  // as the user wrote it
  int64_t workers = 1;
  double timeout_seconds = 10;  // from the moment a line is written to a program that waits for it
};

/// Programs that live on and answer lines with lines, one each, in order.
///
/// A thread of its own feeds them: submit() only queues, collect() waits. A program that is silent
/// for too long is killed, one that ends is started again with the next line; the line at hand gets
/// no answer. A program that prints more lines than it got is out of step: it is started anew, and
/// none of its answers since collect() counts. What it writes to standard error goes to the log.
class WorkerPool {
 public:
  /// Starts no program yet: that is the first line's doing.
  explicit WorkerPool(WorkerPoolOptions options);
  /// Closes the programs' input, gives them a moment, kills and reaps them.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  struct Answer {
    std::string line;
    std::string problem;  // why there is none; else empty
  };

  void submit(std::string line);
  /// The answers to all lines since the last call, in their order. Throws RunError when the program
  /// cannot be started, ended three times in a row without a single answer, or has never answered
  /// one of the first eight lines in time.
  std::vector<Answer> collect();

 private:
  class Feeder;

  void wake();

  const WorkerPoolOptions options_;
  int wake_ = -1;  // an eventfd

  // Shared with the thread.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> submitted_;
  int64_t submitted_count_ = 0;  // since collect()
  bool collecting_ = false, stopping_ = false;
  std::vector<Answer> collected_;
  std::string broken_;

  std::thread thread_;
};

}  // namespace temper::trainer
