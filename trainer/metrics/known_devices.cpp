#include "trainer/metrics/known_devices.h"

#include <algorithm>
#include <cctype>

namespace temper::trainer {

// NVIDIA's data sheets. Where they print the rate of sparse products, half of it; of the two
// GeForce cards that of float16 products with float32 sums (white papers of GA102 and AD102).
const std::vector<KnownDevice>& known_devices() {
  static const std::vector<KnownDevice> devices = {
      {"a100-40", {"NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"}, 312, 19.5, 1555, 40},
      {"a100-80", {"NVIDIA A100-SXM4-80GB"}, 312, 19.5, 2039, 80},
      {"a100-80-pcie", {"NVIDIA A100 80GB PCIe"}, 312, 19.5, 1935, 80},
      {"h100-sxm", {"NVIDIA H100 80GB HBM3"}, 989, 67, 3350, 80},
      {"h100-pcie", {"NVIDIA H100 PCIe"}, 756, 51, 2000, 80},
      {"h200", {"NVIDIA H200"}, 989, 67, 4800, 140},
      {"b200", {"NVIDIA B200"}, 2250, 75, 8000, 179},
      {"l40s", {"NVIDIA L40S"}, 362, 91.6, 864, 48},
      {"l4", {"NVIDIA L4"}, 121, 30.3, 300, 24},
      {"rtx4090", {"NVIDIA GeForce RTX 4090"}, 165, 82.6, 1008, 24},
      {"rtx3090", {"NVIDIA GeForce RTX 3090"}, 71, 35.6, 936, 24},
  };
  return devices;
}

const KnownDevice* find_known_device(std::string_view name) {
  for (const KnownDevice& device : known_devices()) {
    const bool same = std::ranges::equal(device.name, name, [](char known, char given) {
      return known == std::tolower(static_cast<unsigned char>(given));
    });
    if (same) return &device;
  }
  return nullptr;
}

const KnownDevice* known_device_of(std::string_view model) {
  for (const KnownDevice& device : known_devices()) {
    if (std::ranges::find(device.models, model) != device.models.end()) return &device;
  }
  return nullptr;
}

DeviceRates rates_at_best(const KnownDevice& device) {
  DeviceRates rates;
  rates.copy_bytes_per_second = device.memory_gb_per_s * 1e9;
  for (const auto dtype : {recipes::Dtype::kFp32, recipes::Dtype::kBf16, recipes::Dtype::kFp16}) {
    TypeRates& type = rates.of(dtype);
    const bool whole = dtype == recipes::Dtype::kFp32;
    type.peak = (whole ? device.fp32_tflops : device.bf16_tflops) * 1e12;
    type.products.fill(type.peak);
    type.weight_gradients.fill(type.peak);
    type.attention = type.peak;
    type.logits = rates.copy_bytes_per_second / logit_bytes(whole ? 4 : 2);
  }
  return rates;
}

}  // namespace temper::trainer
