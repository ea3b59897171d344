// Casts and linear layers in float8 against torchao: goldens of make_float8.py.
#include "trainer/ops/float8.h"

#include <map>
#include <string>
#include <utility>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/parity/golden.h"
#include "tests/trainer/ops/compare.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/ops/linear.h"

namespace temper::trainer {
namespace {

class Float8Parity : public testing::Test {
 protected:
  const SafetensorsFile golden_{golden_files("float8") / "float8.safetensors"};
};

struct Way {
  Float8Role role;
  Float8Scaling scaling;
  bool columns = false;
};

TEST_F(Float8Parity, EveryCodeAndScaleHasTheSameBits) {
  const std::map<std::string, Way> ways = {
      {"tensorwise", {Float8Role::kValue, Float8Scaling::kTensorwise}},
      {"tensorwise_gradient", {Float8Role::kGradient, Float8Scaling::kTensorwise}},
      {"rows", {Float8Role::kValue, Float8Scaling::kRowwise}},
      {"columns", {Float8Role::kGradient, Float8Scaling::kRowwise, true}}};
  int checked = 0;
  for (const std::string& name : golden_.names()) {
    if (!name.starts_with("input/")) continue;
    const at::Tensor input = golden_.tensor(name);
    for (const auto& [way, how] : ways) {
      const std::string key = way + "/" + name.substr(6);
      const at::Tensor codes = golden_.tensor(key + ".codes"), scale = golden_.tensor(key + ".scale");
      const Float8Matrix found = to_float8(how.columns ? input.t() : input, how.role, how.scaling);
      const at::Tensor rows = how.columns ? codes.t() : codes;
      const at::Tensor bytes = found.codes.view(at::kByte);
      EXPECT_TRUE(bytes.narrow(1, 0, rows.size(1)).equal(rows)) << key;
      EXPECT_EQ(bytes.size(1) % 16, 0) << key;
      EXPECT_EQ(bytes.narrow(1, rows.size(1), bytes.size(1) - rows.size(1)).count_nonzero().item<int64_t>(), 0)
          << key;
      const at::Tensor inverse = scale.reciprocal();
      EXPECT_TRUE(found.inverse_scales.equal(how.columns ? inverse.t() : inverse)) << key;
      ++checked;
    }
  }
  EXPECT_GE(checked, 40);
}

// Codes and scales are the same bits (above), what remains is rounding. In float32: the order of the
// sums, and torchao divides codes by scales before it multiplies them; 1e-6 is 8 units in the last
// place of the largest element. In bfloat16: y and dx are rounded once (y again with its bias), and
// a sum that falls just beside the middle of two values may be rounded the other way, 2^-8 of the
// value; torchao rounds dweight too, which here is added to float32.
double tolerated(at::ScalarType dtype) { return dtype == at::kFloat ? 1e-6 : 1.0 / 256; }

TEST_F(Float8Parity, ALinearLayerAndItsGradientsAreTorchaos) {
  for (const auto& [recipe, scaling] :
       {std::pair{"tensorwise", Float8Scaling::kTensorwise},
        std::pair{"rowwise", Float8Scaling::kRowwise}}) {
    for (const auto& [type, dtype] : {std::pair{"fp32", at::kFloat}, std::pair{"bf16", at::kBFloat16}}) {
      const std::string at = std::string("layer/") + recipe + "/" + type + "/";
      SCOPED_TRACE(at);
      Projection p;
      p.weight = golden_.tensor(at + "weight");
      p.bias = golden_.tensor(at + "bias");
      p.rows = {p.weight.size(0)};
      p.weights = {p.weight.detach().requires_grad_(true)};
      p.biases = {p.bias.detach().requires_grad_(true)};
      p.float8 = scaling;
      const at::Tensor x = golden_.tensor(at + "x").requires_grad_(true);
      const at::Tensor dy = golden_.tensor(at + "dy");
      const at::Tensor y = linear(x, p);
      y.backward(dy);
      const std::map<std::string, at::Tensor> found = {
          {"y", y}, {"dx", x.grad()}, {"dweight", p.weights[0].grad()}};
      for (const auto& [name, tensor] : found) {
        EXPECT_LT(worst(tensor, golden_.tensor(at + name)), tolerated(dtype)) << name;
      }
      EXPECT_LT(worst(p.biases[0].grad(), golden_.tensor(at + "dbias")), 1e-2);
      // Without float8 it is another layer by far.
      p.float8.reset();
      EXPECT_GT(worst(linear(x, p), golden_.tensor(at + "y")), 4 * tolerated(at::kBFloat16));
    }
  }
}

}  // namespace
}  // namespace temper::trainer
