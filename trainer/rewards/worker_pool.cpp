#include "trainer/rewards/worker_pool.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "parallel/log.h"
#include "recipes/diagnostic.h"
#include "trainer/rewards/process.h"

namespace temper::trainer {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr int kFruitlessEnds = 3;
constexpr int kSilentLines = 8;
constexpr size_t kLongestLine = 1 << 16;
constexpr double kEndGrace = 0.2;      // from the end of its output to that of a program
constexpr double kGoodbyeGrace = 1.0;  // from the end of its input
// A surplus line follows the right one closely, but not at once.
constexpr double kSettle = 0.02;

std::string in_apostrophes(const std::string& text) {
  constexpr size_t kShown = 120;
  std::string shown = text.substr(0, kShown);
  if (text.size() > kShown) shown += "...";
  return "'" + shown + "'";
}

struct Job {
  int64_t index;
  std::string line;
};

struct Worker {
  explicit Worker(std::unique_ptr<Process> started)
      : process(std::move(started)), output(process->output()), errors(process->errors()) {}

  std::unique_ptr<Process> process;
  LineReader output, errors;
  std::optional<Job> job;
  size_t written = 0;
  Clock::time_point deadline;
  std::vector<int64_t> answered;  // since collect()
  bool has_answered = false, in_step = false;
  bool errors_open = true;
  std::string last_error_line;
};

}  // namespace

/// What the thread does and owns.
class WorkerPool::Feeder {
 public:
  explicit Feeder(WorkerPool& pool) : pool_(pool), workers_(pool.options_.workers) {}

  void run() {
    std::unique_lock lock(pool_.mutex_);
    while (!pool_.stopping_) {
      take_submitted();
      if (pool_.broken_.empty()) assign();
      if (pool_.collecting_ && pool_.broken_.empty()) finish_collection();
      wait(lock);
      serve();
    }
    lock.unlock();
    say_goodbye();
  }

 private:
  void take_submitted() {
    while (!pool_.submitted_.empty()) {
      queue_.push_back(
          {static_cast<int64_t>(answers_.size()), std::move(pool_.submitted_.front())});
      answers_.emplace_back();
      pool_.submitted_.pop_front();
    }
  }

  void assign() {
    for (auto& worker : workers_) {
      if (queue_.empty()) return;
      if (worker == nullptr && !begin(worker)) return;
      if (worker->job) continue;
      // Lines that came before they were asked for are noticed here at the latest.
      read_output(worker);
      if (worker == nullptr && (!pool_.broken_.empty() || !begin(worker))) return;
      worker->job = std::move(queue_.front());
      queue_.pop_front();
      worker->written = 0;
      worker->deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                            Seconds(pool_.options_.timeout_seconds));
      ++in_flight_;
      write_input(*worker);
    }
  }

  bool begin(std::unique_ptr<Worker>& worker) {
    try {
      worker = std::make_unique<Worker>(
          std::make_unique<Process>(pool_.options_.arguments, pool_.options_.environment));
      return true;
    } catch (const RunError& error) {
      give_up(error.what());
      return false;
    }
  }

  void finish_collection() {
    if (!queue_.empty() || in_flight_ > 0 || !pool_.submitted_.empty()) return;
    const bool unsure = std::any_of(workers_.begin(), workers_.end(), [](const auto& worker) {
      return worker != nullptr && !worker->in_step && !worker->answered.empty();
    });
    if (unsure && !settled_)
      settled_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(Seconds(kSettle));
    if (unsure && Clock::now() < *settled_) return;
    for (auto& worker : workers_) {
      if (worker != nullptr) read_output(worker);
      if (worker == nullptr) continue;
      worker->in_step = worker->in_step || !worker->answered.empty();
      worker->answered.clear();
    }
    settled_.reset();
    pool_.collected_ = std::exchange(answers_, {});
    pool_.collecting_ = false;
    pool_.changed_.notify_all();
  }

  void wait(std::unique_lock<std::mutex>& lock) {
    polled_ = {{pool_.wake_, POLLIN, 0}};
    std::optional<Clock::time_point> next = settled_;
    for (const auto& worker : workers_) {
      if (worker == nullptr) continue;
      polled_.push_back({worker->process->output(), POLLIN, 0});
      if (worker->errors_open) polled_.push_back({worker->process->errors(), POLLIN, 0});
      if (!worker->job) continue;
      if (worker->written < worker->job->line.size()) {
        polled_.push_back({worker->process->input(), POLLOUT, 0});
      }
      next = next ? std::min(*next, worker->deadline) : worker->deadline;
    }
    int milliseconds = -1;
    if (next) {
      const double left = std::chrono::duration<double, std::milli>(*next - Clock::now()).count();
      milliseconds = static_cast<int>(std::clamp(std::ceil(left), 0.0, 60000.0));
    }
    lock.unlock();
    ::poll(polled_.data(), polled_.size(), milliseconds);
    uint64_t ignored;
    while (::read(pool_.wake_, &ignored, sizeof ignored) < 0 && errno == EINTR) {
    }
    lock.lock();
  }

  void serve() {
    for (auto& worker : workers_) {
      if (worker == nullptr) continue;
      read_errors(*worker);
      write_input(*worker);
      read_output(worker);
      if (worker != nullptr && worker->job && Clock::now() >= worker->deadline) time_out(worker);
    }
  }

  void write_input(Worker& worker) {
    if (!worker.job) return;
    const std::string& line = worker.job->line;
    while (worker.written < line.size()) {
      const ssize_t count = ::write(worker.process->input(), line.data() + worker.written,
                                    line.size() - worker.written);
      if (count >= 0) {
        worker.written += static_cast<size_t>(count);
      } else if (errno == EPIPE) {
        worker.written = line.size();  // its output will tell what became of it
      } else if (errno != EINTR) {
        return;
      }
    }
  }

  void read_output(std::unique_ptr<Worker>& worker) {
    const bool open = worker->output.fill();
    while (const auto line = worker->output.next()) {
      if (!worker->job) return out_of_step(worker, *line);
      worker->has_answered = ever_answered_ = true;
      fruitless_ends_ = 0;
      worker->answered.push_back(worker->job->index);
      answers_[worker->job->index].line = *line;
      worker->job.reset();
      --in_flight_;
    }
    if (worker->output.rest().size() > kLongestLine) {
      const std::string begun(worker->output.rest());
      fail_job(*worker, "answered with more than " + std::to_string(kLongestLine) +
                            " bytes without an end of line: " + in_apostrophes(begun));
      stop(worker, 0);
    } else if (!open) {
      ended(worker);
    }
  }

  void read_errors(Worker& worker) {
    if (!worker.errors_open) return;
    worker.errors_open = worker.errors.fill();
    while (const auto line = worker.errors.next()) log_error(worker, *line);
    if (worker.errors.rest().size() > kLongestLine || !worker.errors_open) flush_errors(worker);
  }

  void flush_errors(Worker& worker) {
    const std::string rest = worker.errors.take_rest();
    if (!rest.empty()) log_error(worker, rest);
  }

  void log_error(Worker& worker, const std::string& line) {
    worker.last_error_line = line;
    parallel::warn("reward " + pool_.options_.name + ": " + line, true);
  }

  void out_of_step(std::unique_ptr<Worker>& worker, const std::string& line) {
    const std::string problem =
        "printed more lines than it was asked for, as " + in_apostrophes(line) +
        "; one line for each completion is expected, and anything else on standard error";
    for (const int64_t index : worker->answered) answers_[index] = {"", problem};
    parallel::warn("reward " + pool_.options_.name + ": the program " + problem, true);
    stop(worker, 0);
  }

  void ended(std::unique_ptr<Worker>& worker) {
    const bool had_answered = worker->has_answered;
    std::optional<Job> job = std::exchange(worker->job, std::nullopt);
    const std::string how = stop(worker, kEndGrace);
    const std::string problem = "ended (" + how + ") without an answer";
    if (job) {
      --in_flight_;
      answers_[job->index] = {"", problem};
    }
    if (had_answered) return;
    if (++fruitless_ends_ >= kFruitlessEnds) {
      give_up("was started " + std::to_string(kFruitlessEnds) +
              " times and ended each time without a single answer, the last time with " + how);
    }
  }

  void time_out(std::unique_ptr<Worker>& worker) {
    std::string seconds = std::to_string(pool_.options_.timeout_seconds);
    seconds.erase(seconds.find_last_not_of('0') + 1);
    if (seconds.ends_with('.')) seconds.pop_back();
    fail_job(*worker, "gave no answer within timeout = " + seconds +
                          " s; each line is to be answered, and flushed, before the next is read");
    stop(worker, 0);
    if (!ever_answered_ && ++silent_lines_ >= kSilentLines) {
      give_up("answered none of the first " + std::to_string(kSilentLines) +
              " completions within timeout = " + seconds +
              " s; each line is to be answered, and flushed, before the next is read");
    }
  }

  void fail_job(Worker& worker, const std::string& problem) {
    if (!worker.job) return;
    answers_[worker.job->index] = {"", problem};
    worker.job.reset();
    --in_flight_;
  }

  // Returns how it ended, with the last line of its standard error.
  std::string stop(std::unique_ptr<Worker>& worker, double grace) {
    std::string how = worker->process->end(grace);
    read_errors(*worker);
    flush_errors(*worker);
    if (!worker->last_error_line.empty())
      how += "; it said: " + in_apostrophes(worker->last_error_line);
    worker.reset();
    return how;
  }

  void give_up(const std::string& why) {
    pool_.broken_ = "reward " + pool_.options_.name +
                    ": command = " + in_apostrophes(pool_.options_.command) + " " + why;
    pool_.changed_.notify_all();
  }

  void say_goodbye() {
    const auto until =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(Seconds(kGoodbyeGrace));
    for (auto& worker : workers_) {
      if (worker == nullptr) continue;
      if (worker->job) {
        stop(worker, 0);
      } else {
        worker->process->close_input();
      }
    }
    for (auto& worker : workers_) {
      // Its last words, which it may wait to get rid of.
      while (worker != nullptr && Clock::now() < until) {
        read_errors(*worker);
        if (!worker->output.fill()) break;
        worker->output.take_rest();
        pollfd output = {worker->process->output(), POLLIN, 0};
        ::poll(&output, 1, 10);
      }
      if (worker != nullptr) {
        stop(worker, std::max(0.0, Seconds(until - Clock::now()).count()));
      }
    }
  }

  WorkerPool& pool_;
  std::vector<std::unique_ptr<Worker>> workers_;  // null: not running
  std::deque<Job> queue_;
  std::vector<Answer> answers_;  // by job
  int64_t in_flight_ = 0;
  bool ever_answered_ = false;
  int fruitless_ends_ = 0, silent_lines_ = 0;
  std::optional<Clock::time_point> settled_;
  std::vector<pollfd> polled_;
};

WorkerPool::WorkerPool(WorkerPoolOptions options) : options_(std::move(options)) {
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_ < 0) throw RunError(std::string("no event descriptor: ") + std::strerror(errno));
  // The thread inherits the mask: signals are the main thread's, and SIGPIPE is EPIPE here.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Feeder(*this).run(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake();
  thread_.join();
  ::close(wake_);
}

void WorkerPool::submit(std::string line) {
  line.push_back('\n');
  {
    const std::lock_guard lock(mutex_);
    submitted_.push_back(std::move(line));
    ++submitted_count_;
  }
  wake();
}

std::vector<WorkerPool::Answer> WorkerPool::collect() {
  std::unique_lock lock(mutex_);
  if (submitted_count_ == 0 && broken_.empty()) return {};
  collecting_ = true;
  wake();
  changed_.wait(lock, [this] { return !collecting_ || !broken_.empty(); });
  if (!broken_.empty()) throw RunError(broken_);
  submitted_count_ = 0;
  return std::exchange(collected_, {});
}

void WorkerPool::wake() {
  const uint64_t one = 1;
  while (::write(wake_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

}  // namespace temper::trainer
