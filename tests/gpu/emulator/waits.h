#pragma once

#include <cstdint>

namespace temper::emulator {

/// How often the host has waited for the device since the start: for a value or a size, for a copy
/// that is not from or to pinned memory.
int64_t waits();

}  // namespace temper::emulator
