#include "trainer/metrics/device_rates.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "tests/trainer/checkpoint/scratch.h"
#include "trainer/metrics/known_devices.h"

namespace temper::trainer {
namespace {

/// A home of its own.
class StoredRates : public testing::Test {
 protected:
  StoredRates() { setenv("HOME", (scratch_ / "").c_str(), 1); }
  ~StoredRates() override { setenv("HOME", before_.c_str(), 1); }
  void write(const std::string& text) {
    std::filesystem::create_directories(scratch_ / ".cache/temper");
    std::ofstream(scratch_ / ".cache/temper/peaks.json") << text;
  }

 private:
  const Scratch scratch_;
  const std::string before_ = std::getenv("HOME");
};

TEST_F(StoredRates, TheBestOfSeveralIsKept) {
  EXPECT_FALSE(stored_rates("a device"));
  DeviceRates rates;
  rates.bf16 = {
      .peak = 4, .products = {1, 2}, .weight_gradients = {3, 5}, .attention = 6, .logits = 7};
  rates.copy_bytes_per_second = 8;
  store_rates("a device", rates);
  rates.bf16.peak = 3;
  rates.bf16.products = {0, 3, 9};
  store_rates("a device", rates);
  const DeviceRates best = *stored_rates("a device");
  EXPECT_EQ(best.bf16.peak, 4);
  EXPECT_EQ(best.bf16.products, (ByWidth{1, 3, 9}));
  EXPECT_EQ(best.bf16.weight_gradients, (ByWidth{3, 5, 0}));
  EXPECT_EQ(best.copy_bytes_per_second, 8);
  EXPECT_TRUE(best.bf16.complete());
  EXPECT_FALSE(best.fp32.complete());
  EXPECT_EQ(measured_devices(), std::vector<std::string>{"a device"});
}

TEST_F(StoredRates, AnOlderFileIsReadAndKept) {
  write(
      R"({"a CPU, 2 threads": {"fp32_flops": 2e11, "bf16_flops": 4e11, "copy_bytes_per_second": 3e10}, "other": 5})");
  const DeviceRates rates = *stored_rates("a CPU, 2 threads");
  EXPECT_EQ(rates.fp32.peak, 2e11);
  EXPECT_FALSE(rates.fp32.complete());
  EXPECT_EQ(peak_flops("a CPU, 2 threads", recipes::Dtype::kBf16), 4e11);
  EXPECT_FALSE(peak_flops("a CPU, 2 threads", recipes::Dtype::kFp16));
  DeviceRates more;
  more.fp32.attention = 1e11;
  store_rates("a CPU, 2 threads", more);
  EXPECT_EQ(stored_rates("a CPU, 2 threads")->fp32.peak, 2e11);
  EXPECT_EQ(stored_rates("a CPU, 2 threads")->fp32.attention, 1e11);
  EXPECT_FALSE(stored_rates("other"));
}

TEST_F(StoredRates, ADamagedFileCountsAsEmpty) {
  write("{\"a device\": ");
  EXPECT_FALSE(stored_rates("a device"));
  EXPECT_FALSE(stored_link("a device", 2));
}

TEST_F(StoredRates, TheLinkOfTheNearestNumberOfRanksIsMeant) {
  const auto link = [](int64_t ranks, int64_t hosts, double rate) {
    return LinkRates{.ranks = ranks,
                     .hosts = hosts,
                     .all_reduce_bytes_per_second = rate,
                     .all_gather_bytes_per_second = rate,
                     .latency_seconds = 1 / rate};
  };
  EXPECT_FALSE(stored_link("a device", 2));
  store_link("a device", link(2, 1, 10));
  store_link("a device", link(8, 1, 9));
  store_link("a device", link(8, 2, 5));
  store_link("a device", link(8, 2, 4));
  EXPECT_EQ(stored_link("a device", 3)->ranks, 2);
  const LinkRates far = *stored_link("a device", 1024);
  EXPECT_EQ(far.hosts, 2);
  EXPECT_EQ(far.all_reduce_bytes_per_second, 5);
  EXPECT_EQ(far.latency_seconds, 0.2);
  EXPECT_TRUE(measured_devices().empty());
}

TEST(Rates, ChangeWithTheWidthBetweenThoseThatWereMeasured) {
  const ByWidth rates = {100, 400, 0};
  EXPECT_NEAR(rate_of(rates, 512.0 * 512), 100, 1e-9);
  EXPECT_NEAR(rate_of(rates, 1024.0 * 1024), 200, 1e-9);
  EXPECT_NEAR(rate_of(rates, 2048.0 * 2048), 400, 1e-9);
  EXPECT_NEAR(rate_of(rates, 512.0 * 32000), 400, 1e-9);
  EXPECT_NEAR(rate_of(rates, 16.0 * 512), 100, 1e-9);
  EXPECT_NEAR(rate_of({100, 400, 800}, 4096.0 * 4096), 400 * std::sqrt(2), 1e-9);
  EXPECT_NEAR(rate_of({100, 0, 0}, 4096.0 * 4096), 100, 1e-9);
}

TEST(KnownDevices, AreFoundByTheirNameAndTheDrivers) {
  EXPECT_EQ(find_known_device("H100-SXM"), find_known_device("h100-sxm"));
  EXPECT_EQ(find_known_device("h1000"), nullptr);
  const auto name = [](std::string_view model) {
    const KnownDevice* known = known_device_of(model);
    return known ? known->name : "";
  };
  EXPECT_EQ(name("NVIDIA A100-SXM4-40GB"), "a100-40");
  EXPECT_EQ(name("NVIDIA A100-SXM4-80GB"), "a100-80");
  EXPECT_EQ(name("NVIDIA A100 80GB PCIe"), "a100-80-pcie");
  EXPECT_EQ(name("NVIDIA H100 80GB HBM3"), "h100-sxm");
  EXPECT_EQ(name("NVIDIA H100 PCIe"), "h100-pcie");
  EXPECT_EQ(name("NVIDIA H200"), "h200");
  EXPECT_EQ(name("NVIDIA L40S"), "l40s");
  EXPECT_EQ(name("NVIDIA L4"), "l4");
  EXPECT_EQ(name("NVIDIA L40"), "");
  EXPECT_EQ(name("NVIDIA GeForce RTX 4090"), "rtx4090");
  EXPECT_EQ(name("NVIDIA GeForce RTX 4090 D"), "");
  EXPECT_EQ(name("AMD EPYC, 2 threads"), "");
}

TEST(KnownDevices, HaveWhatAPredictionNeeds) {
  for (const KnownDevice& device : known_devices()) {
    for (const auto dtype : {recipes::Dtype::kFp32, recipes::Dtype::kBf16, recipes::Dtype::kFp16}) {
      EXPECT_TRUE(rates_at_best(device).of(dtype).complete()) << device.name;
    }
    EXPECT_GE(device.memory_gib, 24) << device.name;
  }
  EXPECT_EQ(peak_flops("NVIDIA H100 80GB HBM3", recipes::Dtype::kBf16), 989e12);
}

}  // namespace
}  // namespace temper::trainer
