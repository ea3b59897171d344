#include "trainer/models/quantized_files.h"

#include <functional>
#include <limits>
#include <map>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/checkpoint/scratch.h"
#include "tests/trainer/models/quantized_tensors.h"

namespace temper::trainer {
namespace {

const std::string kName = "model.layers.0.mlp.up_proj.weight";

// A checkpoint in memory, to be damaged.
struct Stored {
  std::map<std::string, at::Tensor> tensors;

  explicit Stored(const QuantizedMatrix& matrix) {
    for (const auto& [name, tensor] : quantized_tensors(kName, matrix)) tensors[name] = tensor;
  }
  QuantizedMatrix read() const {
    return read_quantized(
        [&](const std::string& name) -> StoredTensor {
          const auto found = tensors.find(name);
          return found == tensors.end() ? StoredTensor{}
                                        : StoredTensor{"m.safetensors", found->second};
        },
        kName);
  }
  std::string refusal() const {
    try {
      read();
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }
  at::Tensor& operator[](const std::string& suffix) { return tensors.at(kName + suffix); }
};

at::Tensor weight() { return at::randn({40, 90}, at::detail::createCPUGenerator(5)).to(at::kHalf); }

Stored nf4(bool double_quant = true) {
  return Stored(quantize(weight(), QuantKind::kNf4, double_quant, kName));
}
Stored int8() { return Stored(quantize(weight(), QuantKind::kInt8, false, kName)); }

const std::string kState = ".quant_state.bitsandbytes__nf4";

std::string json_of(Stored& stored) {
  const at::Tensor bytes = stored[kState];
  return {static_cast<const char*>(bytes.const_data_ptr()), static_cast<size_t>(bytes.numel())};
}
void set_json(Stored& stored, const std::string& json) {
  at::Tensor bytes = at::empty({static_cast<int64_t>(json.size())}, at::kByte);
  std::copy(json.begin(), json.end(), bytes.mutable_data_ptr<uint8_t>());
  stored[kState] = bytes;
}
void replace_in_json(Stored& stored, const std::string& from, const std::string& to) {
  std::string json = json_of(stored);
  ASSERT_NE(json.find(from), std::string::npos) << json;
  set_json(stored, json.replace(json.find(from), from.size(), to));
}

TEST(QuantizedFiles, WhatIsWrittenIsReadBack) {
  const Scratch scratch;
  for (const auto kind : {QuantKind::kNf4, QuantKind::kFp4, QuantKind::kInt8}) {
    for (const bool double_quant : {false, true}) {
      if (kind == QuantKind::kInt8 && double_quant) continue;
      const QuantizedMatrix made = quantize(weight(), kind, double_quant, kName);
      write_safetensors(scratch / "m.safetensors", quantized_tensors(kName, made));
      const SafetensorsFile file(scratch / "m.safetensors");
      const QuantizedMatrix read = read_quantized(
          [&](const std::string& name) {
            return file.contains(name) ? StoredTensor{"m.safetensors", file.tensor(name)}
                                       : StoredTensor{};
          },
          kName);
      EXPECT_EQ(read.rows, 40);
      EXPECT_EQ(read.columns, 90);
      EXPECT_EQ(read.bytes(), made.bytes());
      if (kind != QuantKind::kInt8) {
        EXPECT_EQ(read.stored, at::kHalf);
      }
      EXPECT_TRUE(at::equal(dequantize(read, at::kFloat), dequantize(made, at::kFloat)));
      const std::vector<std::string> companions = quantized_companions(kName);
      for (const std::string& name : file.names()) {
        EXPECT_TRUE(name == kName || std::count(companions.begin(), companions.end(), name) == 1)
            << name;
      }
    }
  }
}

TEST(QuantizedFiles, PlainWeightsAreNotQuantised) {
  Stored stored = nf4();
  stored.tensors = {{kName, weight()}};
  EXPECT_FALSE(stored.read().defined());
  stored.tensors.clear();
  EXPECT_FALSE(stored.read().defined());
}

TEST(QuantizedFiles, PackedBytesMayBeStoredAsAnotherTypeOrShape) {
  Stored stored = nf4();
  const at::Tensor values = dequantize(stored.read(), at::kFloat);
  const at::Tensor bytes = stored[""];
  stored[""] = bytes.view(-1).view(at::kBFloat16).view({-1, 1});
  EXPECT_TRUE(at::equal(dequantize(stored.read(), at::kFloat), values));
  stored[""] = bytes.view({1, -1});
  EXPECT_TRUE(at::equal(dequantize(stored.read(), at::kFloat), values));
}

TEST(QuantizedFiles, DamageIsNamedWithItsFileAndTensor) {
  struct Case {
    std::string what;
    std::function<void(Stored&)> damage;
    std::string tensor, says;
  };
  const std::vector<Case> cases = {
      {"no scales", [](Stored& s) { s.tensors.erase(kName + ".absmax"); }, ".absmax", "is missing"},
      {"no nested scales", [](Stored& s) { s.tensors.erase(kName + ".nested_absmax"); },
       ".nested_absmax", "is missing"},
      {"no state", [](Stored& s) { s.tensors.erase(kName + kState); }, "", "is packed, but"},
      {"short codes", [](Stored& s) { s[""] = s[""].slice(0, 1); }, "", "1799 bytes"},
      {"too many scales", [](Stored& s) { s[".absmax"] = at::zeros({99}, at::kByte); }, ".absmax",
       "99 of Byte, must be 57"},
      {"scales of another type", [](Stored& s) { s[".absmax"] = at::zeros({57}); }, ".absmax",
       "57 of Float"},
      {"NaN", [](Stored& s) { s[".nested_absmax"].fill_(std::numeric_limits<float>::quiet_NaN()); },
       ".nested_absmax", "NaN"},
      {"another table", [](Stored& s) { s[".quant_map"][3] = 0.5f; }, ".quant_map", "entry 3"},
      {"another nested table", [](Stored& s) { s[".nested_quant_map"][0] = -1.0f; },
       ".nested_quant_map", "entry 0"},
      {"no JSON", [](Stored& s) { set_json(s, "{\"quant_type\": "); }, kState, "JSON"},
      {"other blocks",
       [](Stored& s) { replace_in_json(s, "\"blocksize\": 64", "\"blocksize\": 128"); }, kState,
       "blocksize is 128, must be 64"},
      {"another kind", [](Stored& s) { replace_in_json(s, "nf4", "fp4"); }, kState, "quant_type"},
      {"a negative shape", [](Stored& s) { replace_in_json(s, "[40, 90]", "[-40, 90]"); }, kState,
       "shape is [-40,90]"},
      {"a huge shape", [](Stored& s) { replace_in_json(s, "[40, 90]", "[1099511627776, 90]"); },
       kState, "shape is"},
      {"another shape", [](Stored& s) { replace_in_json(s, "[40, 90]", "[40, 91]"); }, "",
       "40 x 91"},
      {"a dtype", [](Stored& s) { replace_in_json(s, "float16", "float8"); }, kState, "dtype"},
      {"other nested blocks",
       [](Stored& s) {
         replace_in_json(s, "\"nested_blocksize\": 256", "\"nested_blocksize\": 64");
       },
       kState, "nested_blocksize"},
  };
  for (const Case& c : cases) {
    Stored stored = nf4();
    c.damage(stored);
    const std::string line = stored.refusal();
    EXPECT_EQ(line.find("m.safetensors: tensor '" + kName + c.tensor + "': "), 0u)
        << c.what << ": " << line;
    EXPECT_NE(line.find(c.says), std::string::npos) << c.what << ": " << line;
  }
}

TEST(QuantizedFiles, EightBitsNeedTheirScalesAndRowMajorCodes) {
  const std::string scb = "model.layers.0.mlp.up_proj.SCB";
  Stored stored = int8();
  EXPECT_EQ(stored.tensors.count("model.layers.0.mlp.up_proj.weight_format"), 1u);
  stored.tensors["model.layers.0.mlp.up_proj.weight_format"].fill_(2);
  EXPECT_NE(stored.refusal().find("weight_format"), std::string::npos);
  stored.tensors.erase("model.layers.0.mlp.up_proj.weight_format");
  EXPECT_EQ(stored.refusal(), "");
  stored.tensors.erase(scb);
  EXPECT_NE(stored.refusal().find("'" + scb + "': is missing"), std::string::npos);
}

}  // namespace
}  // namespace temper::trainer
