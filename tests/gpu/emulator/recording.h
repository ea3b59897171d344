#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "parallel/plugin.h"

/// Recorded work of the emulated device (parallel/plugin.h): a list of what it did, on any threads.
/// As on a real device nothing is done while it is recorded: it is in truth, and then the bytes of
/// before are put back.
namespace temper::emulator {

/// CudaPlugin::record. `beside` is nothing here: each has memory of its own.
std::unique_ptr<parallel::DeviceGraph> record(int device, const std::function<void()>& work,
                                              parallel::DeviceGraph* beside);

/// How often recorded work was done again since the start.
int64_t replays();

/// Work is being recorded.
bool recording();
/// Then it throws: `what` is nothing that a device could do again by itself.
void refuse_while_recording(const std::string& what);
/// Then what the device has just done is `again`.
void record_step(const std::function<void()>& again);

}  // namespace temper::emulator
