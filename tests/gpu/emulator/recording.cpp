#include "tests/gpu/emulator/recording.h"

#include <atomic>
#include <mutex>
#include <vector>

#include <c10/util/Exception.h>

#include "tests/gpu/emulator/memory.h"

namespace temper::emulator {

namespace {

using Steps = std::vector<std::function<void()>>;

std::mutex mutex;
Steps* steps = nullptr;  // of what is being recorded
std::atomic<bool> is_recording = false;
std::atomic<int64_t> replayed = 0;

class Graph final : public parallel::DeviceGraph {
 public:
  explicit Graph(const std::function<void()>& work) {
    struct Recording {
      explicit Recording(Graph& graph) : memory(graph.memory_) { point_to(&graph.steps_); }
      ~Recording() {
        point_to(nullptr);
        memory.close();
      }
      static void point_to(Steps* list) {
        const std::lock_guard lock(mutex);
        steps = list;
        is_recording = list != nullptr;
      }
      RecordedMemory& memory;
    };
    const Recording now(*this);
    work();
  }

  void replay() override {
    refuse_while_recording("recorded work");
    ++replayed;
    const Working now;
    for (const auto& step : steps_) step();
  }

 private:
  RecordedMemory memory_;
  Steps steps_;
};

}  // namespace

std::unique_ptr<parallel::DeviceGraph> record(int, const std::function<void()>& work,
                                              parallel::DeviceGraph*) {
  return std::make_unique<Graph>(work);
}

int64_t replays() { return replayed; }

bool recording() { return is_recording; }

void refuse_while_recording(const std::string& what) {
  TORCH_CHECK(!recording(), what, " cannot be recorded");
}

void record_step(const std::function<void()>& again) {
  if (!recording()) return;
  const std::lock_guard lock(mutex);
  steps->push_back(again);
}

}  // namespace temper::emulator
