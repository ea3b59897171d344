#pragma once

#include <functional>
#include <memory>

#include "parallel/plugin.h"

namespace temper::parallel {

/// CudaPlugin::record.
std::unique_ptr<DeviceGraph> record_graph(int device, const std::function<void()>& work,
                                          DeviceGraph* beside);

}  // namespace temper::parallel
