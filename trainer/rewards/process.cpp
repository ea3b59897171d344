#include "trainer/rewards/process.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

void close_and_forget(int& descriptor) {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

struct Pipe {
  int reading = -1, writing = -1;

  Pipe() {
    std::array<int, 2> ends;
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
      throw RunError(std::string("no pipe to a program: ") + std::strerror(errno));
    }
    // Above the standard streams, which may be closed here and are dup2's targets in the child.
    reading = ::fcntl(ends[0], F_DUPFD_CLOEXEC, 3);
    writing = ::fcntl(ends[1], F_DUPFD_CLOEXEC, 3);
    ::close(ends[0]);
    ::close(ends[1]);
    if (reading < 0 || writing < 0) {
      close_and_forget(reading);
      close_and_forget(writing);
      throw RunError(std::string("no pipe to a program: ") + std::strerror(errno));
    }
  }
  ~Pipe() {
    close_and_forget(reading);
    close_and_forget(writing);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
};

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

// Between vfork and exec: system calls only, the memory is the parent's. vfork, because fork copies
// the page tables of a process that holds a model.
[[gnu::noinline]] pid_t start(char* const* arguments, char* const* environment, int input,
                              int output, int errors, volatile int* error) {
  const pid_t parent = ::getpid();
  sigset_t none;
  ::sigemptyset(&none);
  const pid_t id = ::vfork();
  if (id != 0) return id;
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // it died before the request above
  if (::dup2(input, 0) >= 0 && ::dup2(output, 1) >= 0 && ::dup2(errors, 2) >= 0) {
    ::close_range(3, ~0u, 0);
    ::signal(SIGPIPE, SIG_DFL);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execve(arguments[0], arguments, environment);
  }
  *error = errno;
  ::_exit(127);
}

// So that no handler of ours runs in a child that shares our memory.
struct SignalsBlocked {
  sigset_t before;
  SignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before, nullptr); }
};

std::string described(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return "exit status " + std::to_string(info.si_status);
  return "signal " + std::to_string(info.si_status) + " (" + ::strsignal(info.si_status) + ")";
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments,
                 const std::vector<std::string>& environment) {
  Pipe input, output, errors;
  volatile int error = 0;
  {
    const SignalsBlocked blocked;
    id_ = start(pointers(arguments).data(), pointers(environment).data(), input.reading,
                output.writing, errors.writing, &error);
    if (id_ < 0) error = errno;
  }
  if (error != 0) {
    if (id_ > 0) end(0);
    throw RunError("'" + arguments[0] + "' cannot be started: " + std::strerror(error));
  }
  input_ = std::exchange(input.writing, -1);
  output_ = std::exchange(output.reading, -1);
  errors_ = std::exchange(errors.reading, -1);
  for (const int descriptor : {input_, output_, errors_}) {
    ::fcntl(descriptor, F_SETFL, ::fcntl(descriptor, F_GETFL) | O_NONBLOCK);
  }
}

Process::~Process() {
  end(0);
  close_and_forget(input_);
  close_and_forget(output_);
  close_and_forget(errors_);
}

void Process::close_input() { close_and_forget(input_); }

const std::string& Process::end(double grace_seconds) {
  if (!ended_.empty()) return ended_;
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + std::chrono::duration<double>(grace_seconds);
  siginfo_t info{};
  // WNOWAIT: until it is reaped its id, which is that of the group, cannot become another's.
  while (::waitid(P_PID, id_, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0 &&
         Clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ::kill(-id_, SIGKILL);
  while (::waitid(P_PID, id_, &info, WEXITED) != 0) {
    if (errno == EINTR) continue;
    info.si_code = CLD_EXITED;  // reaped by somebody else
    info.si_status = 0;
    break;
  }
  return ended_ = described(info);
}

bool LineReader::fill() {
  std::array<char, 16384> block;
  for (int blocks = 0; blocks < 16;) {  // a program may write faster than this reads
    const ssize_t count = ::read(descriptor_, block.data(), block.size());
    if (count > 0) {
      ++blocks;
      buffer_.append(block.data(), static_cast<size_t>(count));
      if (static_cast<size_t>(count) < block.size()) return true;
    } else if (count == 0) {
      return false;
    } else if (errno != EINTR) {
      return errno == EAGAIN;
    }
  }
  return true;
}

std::optional<std::string> LineReader::next() {
  const size_t end = buffer_.find('\n', begin_);
  if (end == std::string::npos) {
    buffer_.erase(0, begin_);
    begin_ = 0;
    return std::nullopt;
  }
  std::string line = buffer_.substr(begin_, end - begin_);
  begin_ = end + 1;
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

std::string LineReader::take_rest() {
  std::string rest(this->rest());
  buffer_.clear();
  begin_ = 0;
  return rest;
}

}  // namespace temper::trainer
