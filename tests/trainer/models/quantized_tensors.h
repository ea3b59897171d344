#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <string>

#include <ATen/ATen.h>

#include "data/io/json.h"
#include "recipes/diagnostic.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/ops/blockwise.h"
#include "trainer/ops/quantized.h"

namespace temper::trainer {

/// The tensors of a quantised matrix as bitsandbytes 0.50.2 writes them to a checkpoint under
/// `name` ("x.weight"): what quantized_files.h reads.
inline NamedTensors quantized_tensors(const std::string& name, const QuantizedMatrix& m) {
  const std::string module = name.substr(0, name.rfind('.') + 1);
  if (m.kind == QuantKind::kInt8) {
    return {{name, m.codes},
            {module + "SCB", m.absmax},
            {module + "weight_format", at::zeros({}, at::kByte)}};
  }
  const auto as_tensor = [](std::span<const float> values) {
    at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::kFloat);
    std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<float>());
    return tensor;
  };
  const bool nested = m.absmax_codes.defined();
  const std::string kind = m.kind == QuantKind::kNf4 ? "nf4" : "fp4";
  const std::string dtype = m.stored == at::kFloat      ? "float32"
                            : m.stored == at::kBFloat16 ? "bfloat16"
                                                        : "float16";
  NamedTensors tensors = {{name, m.codes},
                          {name + ".absmax", nested ? m.absmax_codes : m.absmax},
                          {name + ".quant_map", as_tensor({values_of_4bit(m.kind), 16})}};
  // json.dumps: ", " and ": ", on one line.
  std::string json = R"({"quant_type": ")" + kind + R"(", "blocksize": 64, "dtype": ")" + dtype +
                     R"(", "shape": [)" + std::to_string(m.rows) + ", " +
                     std::to_string(m.columns) + "]";
  if (nested) {
    json += R"(, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": )" +
            data::Json(static_cast<double>(m.offset)).dump();
    tensors.emplace_back(name + ".nested_absmax", m.nested_absmax);
    tensors.emplace_back(name + ".nested_quant_map", as_tensor(dynamic_code(true).values));
  }
  json += "}";
  at::Tensor bytes = at::empty({static_cast<int64_t>(json.size())}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), json.data(), json.size());
  tensors.emplace_back(name + ".quant_state.bitsandbytes__" + kind, bytes);
  return tensors;
}

}  // namespace temper::trainer
