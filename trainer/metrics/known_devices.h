#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "trainer/metrics/device_rates.h"

/// Devices by their data sheets, for `temper plan --device NAME` where doctor has not been, and for
/// `mfu`. To add one: a row in known_devices.cpp.
namespace temper::trainer {

struct KnownDevice {
  std::string name;                 // as --device takes it: "h100-sxm"
  std::vector<std::string> models;  // as the driver names it: "NVIDIA H100 80GB HBM3"
  double bf16_tflops = 0;           // dense, float32 sums; fp16 too
  double fp32_tflops = 0;           // without tensor cores: Temper asks for no TF32
  double memory_gb_per_s = 0;
  double memory_gib = 0;
};

const std::vector<KnownDevice>& known_devices();
/// By --device's name, in any case; null: none.
const KnownDevice* find_known_device(std::string_view name);
/// By the driver's name; null: none.
const KnownDevice* known_device_of(std::string_view model);

/// What no device exceeds: every product and attention at its peak, everything else at the speed of
/// its memory.
DeviceRates rates_at_best(const KnownDevice& device);

}  // namespace temper::trainer
