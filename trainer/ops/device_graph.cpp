#include "trainer/ops/device_graph.h"

#include <array>
#include <cstdlib>
#include <string_view>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {

namespace {

std::array<RecordFunction, static_cast<size_t>(at::COMPILE_TIME_MAX_DEVICE_TYPES)> functions{};

RecordFunction function_of(at::Device device) {
  return functions[static_cast<size_t>(device.type())];
}

[[noreturn]] void fail(const std::string& what, const std::string& why) {
  throw RunError(what + " cannot be recorded as a CUDA graph: " + why.substr(0, why.find('\n')) +
                 "; TEMPER_CUDA_GRAPHS=0 does without");
}

}  // namespace

void use_graphs(at::DeviceType type, RecordFunction record) {
  functions[static_cast<size_t>(type)] = record;
}

bool can_record(at::Device device) {
  const char* const wanted = std::getenv("TEMPER_CUDA_GRAPHS");
  const bool off = wanted != nullptr && std::string_view(wanted) == "0";
  return function_of(device) != nullptr && !off;
}

std::unique_ptr<DeviceGraph> record(at::Device device, const std::string& what,
                                    const std::function<void()>& work, DeviceGraph* beside) {
  try {
    return function_of(device)(device.index(), work, beside);
  } catch (const c10::Error& error) {
    fail(what, error.what_without_backtrace());
  } catch (const std::exception& error) {
    fail(what, error.what());
  }
}

void send_into(const at::Tensor& to, const at::Tensor& host) {
  to.narrow(0, 0, host.size(0)).copy_(host.pin_memory(), /*non_blocking=*/true);
}

}  // namespace temper::trainer
