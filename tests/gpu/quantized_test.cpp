// Quantised matrices on a device against the CPU.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/gpu/device.h"
#include "tests/trainer/ops/compare.h"
#include "trainer/models/quantized_files.h"
#include "trainer/ops/quantized.h"

namespace temper::trainer {
namespace {

TEST(DeviceQuantized, DequantisesToTheCpusBitsAndMultiplies) {
  TEMPER_NEEDS_DEVICE();
  at::manual_seed(3);
  struct Way {
    QuantKind kind;
    bool twice;
  };
  for (const auto& [kind, twice] : {Way{QuantKind::kNf4, false}, Way{QuantKind::kNf4, true},
                                    Way{QuantKind::kFp4, false}, Way{QuantKind::kFp4, true},
                                    Way{QuantKind::kInt8, false}}) {
    for (const int64_t columns : {90, 328}) {  // without and with packs
      const QuantizedMatrix m = quantize(at::randn({37, columns}) * 0.02, kind, twice, "weight");
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
        const at::Tensor expected = dequantize(m, dtype);
        const OnDevice here;
        const QuantizedMatrix there = on_device(m, test_device());
        EXPECT_TRUE(dequantize(there, dtype).cpu().equal(expected)) << dtype;
        // The rows from the fifth on, aligned and not.
        for (const int64_t first : {0, 1}) {
          const at::Tensor all =
              at::zeros({1 + 31 * columns}, expected.options().device(test_device()));
          const at::Tensor some = all.narrow(0, first, 31 * columns).view({31, columns});
          dequantize_rows(there, 5, 36, some);
          EXPECT_TRUE(some.cpu().equal(expected.narrow(0, 5, 31))) << dtype << ", " << first;
        }
      }
      for (const int64_t first : {0, 1}) {
        const at::Tensor x = at::randn({13, columns + 8}).to(at::kBFloat16);
        at::Tensor expected = at::empty({13, 37}, at::kBFloat16);
        multiply_quantized(expected, x.narrow(1, first, columns), m);
        const OnDevice here;
        const QuantizedMatrix there = on_device(m, test_device());
        at::Tensor y = at::empty({13, 37}, x.options().device(test_device()));
        multiply_quantized(y, x.to(test_device()).narrow(1, first, columns), there);
        EXPECT_LT(worst(y.cpu(), expected), 2 * tolerance(at::kBFloat16));
      }
    }
  }
}

}  // namespace
}  // namespace temper::trainer
