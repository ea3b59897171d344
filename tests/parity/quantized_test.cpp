// Weights in 4 and 8 bits and 8-bit AdamW against bitsandbytes: goldens of make_quantized.py.
#include "trainer/ops/quantized.h"

#include <cstring>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "recipes/diagnostic.h"
#include "tests/parity/golden.h"
#include "tests/trainer/models/quantized_tensors.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/models/quantized_files.h"
#include "trainer/optimizers/optimizer.h"

namespace temper::trainer {
namespace {

// Bits, not values: zeros have signs.
bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::memcmp(a.contiguous().const_data_ptr(), b.contiguous().const_data_ptr(),
                     a.nbytes()) == 0;
}

// Whole numbers over 2^15, drawn as the script draws them.
at::Tensor whole(const at::Generator& generator, at::IntArrayRef shape) {
  constexpr int64_t kOne = 1 << 15;
  return at::randint(-kOne, kOne + 1, shape, generator, at::kLong).to(at::kFloat) / kOne;
}

at::Tensor large_input(const SafetensorsFile& golden) {
  const auto drawn = at::detail::createCPUGenerator(std::stoull(golden.metadata().at("seed")));
  const at::Tensor values = whole(drawn, {260, 65});
  const at::Tensor powers = at::randint(-8, 1, {260, 1}, drawn, at::kLong).to(at::kFloat);
  return values * at::exp2(powers);
}

std::vector<std::pair<std::string, at::Tensor>> inputs(const SafetensorsFile& golden) {
  std::vector<std::pair<std::string, at::Tensor>> cases = {{"large", large_input(golden)}};
  for (const std::string& name : golden.names()) {
    if (name.starts_with("input/")) cases.emplace_back(name.substr(6), golden.tensor(name));
  }
  return cases;
}

struct Way {
  const char* name;
  QuantKind kind;
  bool double_quant;
};
void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }

class QuantizedParity : public testing::TestWithParam<Way> {
 protected:
  std::string key(const std::string& name) const {
    return std::string(GetParam().name) + "/" + name + ".weight";
  }
  QuantizedMatrix quantized(const std::string& name, const at::Tensor& input) const {
    return quantize(input, GetParam().kind, GetParam().double_quant, name);
  }
  const SafetensorsFile golden_{golden_files("quantized") / "weights.safetensors"};
};

TEST_P(QuantizedParity, EveryStoredTensorHasTheSameBits) {
  int checked = 0;
  for (const auto& [name, input] : inputs(golden_)) {
    if (!golden_.contains(key(name))) continue;
    const QuantizedMatrix m = quantized(name, input);
    const bool full = name == "normal" || name == "odd";
    for (const auto& [stored, tensor] : quantized_tensors(key(name), m)) {
      if (!golden_.contains(stored)) {
        EXPECT_FALSE(full) << stored;
        continue;
      }
      EXPECT_TRUE(same_bits(tensor, golden_.tensor(stored))) << stored;
      ++checked;
    }
    const std::string offset = std::string(GetParam().name) + "/" + name + ".offset";
    if (golden_.contains(offset)) {
      EXPECT_EQ(m.offset, golden_.tensor(offset).item<float>()) << offset;
    }
  }
  EXPECT_GE(checked, 40);
}

TEST_P(QuantizedParity, DequantisedWeightsHaveTheSameBits) {
  int checked = 0;
  for (const auto& [name, input] : inputs(golden_)) {
    const std::string dequantized = std::string("dequantized/") + GetParam().name + "/" + name;
    if (!golden_.contains(dequantized)) continue;
    const at::Tensor expected = golden_.tensor(dequantized);
    const QuantizedMatrix m = quantized(name, input);
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      EXPECT_TRUE(same_bits(dequantize(m, dtype), expected.to(dtype))) << name << " " << dtype;
    }
    for (int64_t begin = 0; begin < m.rows; ++begin) {
      const int64_t end = std::min(begin + 2, m.rows);
      at::Tensor rows = at::empty({end - begin, m.columns}, at::kBFloat16);
      dequantize_rows(m, begin, end, rows);
      EXPECT_TRUE(same_bits(rows, expected.slice(0, begin, end).to(at::kBFloat16))) << name;
    }
    ++checked;
  }
  const bool stored = GetParam().double_quant || GetParam().kind == QuantKind::kInt8;
  EXPECT_GE(checked, stored ? 15 : 0);
}

TEST_P(QuantizedParity, CheckpointsAreReadBack) {
  const FindTensor find = [&](const std::string& name) -> StoredTensor {
    if (!golden_.contains(name)) return {};
    return {"weights.safetensors", golden_.tensor(name)};
  };
  for (const char* name : {"normal", "odd"}) {
    const at::Tensor input = golden_.tensor(std::string("input/") + name);
    const QuantizedMatrix m = read_quantized(find, key(name));
    ASSERT_TRUE(m.defined());
    EXPECT_EQ(m.kind, GetParam().kind);
    EXPECT_EQ(m.rows, input.size(0));
    EXPECT_EQ(m.columns, input.size(1));
    if (m.kind != QuantKind::kInt8) {
      EXPECT_EQ(m.stored, input.scalar_type());
    }
    EXPECT_TRUE(
        same_bits(dequantize(m, at::kFloat), dequantize(quantized(name, input), at::kFloat)));
  }
}

INSTANTIATE_TEST_SUITE_P(Bitsandbytes, QuantizedParity,
                         testing::Values(Way{"nf4", QuantKind::kNf4, false},
                                         Way{"nf4_double", QuantKind::kNf4, true},
                                         Way{"fp4", QuantKind::kFp4, false},
                                         Way{"fp4_double", QuantKind::kFp4, true},
                                         Way{"int8", QuantKind::kInt8, false}),
                         [](const auto& way) { return std::string(way.param.name); });

TEST(AdamW8bitParity, CodesAndWeightsFollowBitsandbytes) {
  const SafetensorsFile golden(golden_files("quantized") / "adamw_8bit.safetensors");
  const data::Json settings = data::Json::parse(golden.metadata().at("settings"));
  recipes::Optimizer options;
  options.kind = "adamw_8bit";
  options.betas = settings.at("betas").get<std::vector<double>>();
  options.eps = settings.at("eps");
  options.weight_decay = settings.at("weight_decay");

  const auto drawn = at::detail::createCPUGenerator(std::stoull(golden.metadata().at("seed")));
  std::vector<Parameter> parameters;
  for (const char* name : {"large.weight", "small.weight", "large.bias"}) {
    Parameter& parameter = parameters.emplace_back();
    parameter.name = name;
    parameter.value = whole(drawn, golden.shape(std::string("weight/") + name)).requires_grad_();
    parameter.master = parameter.value;
    parameter.decay = parameter.name.ends_with("weight");
  }
  const auto optimizer = build_optimizer(options, parameters);
  const std::vector<std::pair<std::string, std::string>> states = {
      {"exp_avg", "state1"},
      {"exp_avg_sq", "state2"},
      {"exp_avg_absmax", "absmax1"},
      {"exp_avg_sq_absmax", "absmax2"}};

  int checked = 0;
  const int64_t steps = std::stoll(golden.metadata().at("steps"));
  for (int64_t step = 1; step <= steps; ++step) {
    for (Parameter& parameter : parameters) {
      at::Tensor gradient =
          whole(drawn, parameter.value.sizes()) * std::pow(4.0, -static_cast<double>(step % 3));
      at::Tensor flat = gradient.view(-1);
      if (step < 3) flat.slice(0, 0, 300).zero_();
      flat.slice(0, 600, 900).mul_(std::pow(2.0, -70));
      parameter.value.mutable_grad() = gradient;
    }
    optimizer->step(settings.at("lr"), 1.0);
    for (const auto& [name, state] : optimizer->state()) {
      for (const auto& [ours, theirs] : states) {
        if (!name.starts_with(ours + "/")) continue;
        const std::string key =
            std::to_string(step) + "/" + theirs + "/" + name.substr(ours.size() + 1);
        if (!golden.contains(key)) continue;
        EXPECT_TRUE(same_bits(state, golden.tensor(key))) << key;
        ++checked;
      }
    }
  }
  EXPECT_EQ(checked, 2 * (4 + 2 + 4));
  for (const Parameter& parameter : parameters) {
    const at::Tensor expected = golden.tensor("weight/" + parameter.name);
    const double error = (parameter.value.detach() - expected).abs().max().item<double>();
    EXPECT_LE(error, 1e-6 * expected.abs().max().item<double>()) << parameter.name;
  }
}

}  // namespace
}  // namespace temper::trainer
