#include "parallel/deadline.h"

#include <chrono>
#include <utility>

#include <unistd.h>

#include "parallel/collective_timeout.h"
#include "parallel/log.h"

namespace temper::parallel {

Deadline::Deadline(std::string what, double seconds)
    : thread_([this, what = std::move(what), seconds] {
        std::unique_lock lock(mutex_);
        if (over_.wait_for(lock, std::chrono::duration<double>(seconds),
                           [this] { return done_; })) {
          return;
        }
        warn(what + " waited " + timeout_text(seconds) +
                 ": a rank is stuck or lost, or hosts do not reach each other "
                 "(OMPI_MCA_btl_tcp_if_include=DEVICE takes one network alone)",
             true);
        _exit(1);
      }) {}

Deadline::~Deadline() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  over_.notify_one();
  thread_.join();
}

}  // namespace temper::parallel
