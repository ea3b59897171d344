#pragma once

#include <functional>
#include <string>
#include <vector>

#include "trainer/checkpoint/safetensors.h"
#include "trainer/ops/quantized.h"

/// Quantised weights in a checkpoint's safetensors, under the names that bitsandbytes' layers give
/// them and transformers saves. For "x.weight", 4 bits: "x.weight" (packed), "x.weight.absmax",
/// "x.weight.quant_map", with double quantisation "x.weight.nested_absmax" and
/// "x.weight.nested_quant_map", and "x.weight.quant_state.bitsandbytes__nf4" (or fp4): the bytes of
/// a JSON object with the rest. 8 bits: "x.weight" (int8), "x.SCB", "x.weight_format".
namespace temper::trainer {

/// A tensor of a checkpoint and the file it is in; the tensor is undefined where there is none.
struct StoredTensor {
  std::string file;
  at::Tensor tensor;
};
using FindTensor = std::function<StoredTensor(const std::string& name)>;

/// The names beside "x.weight" that a quantised matrix may have: what belongs to it in a list of
/// tensors.
std::vector<std::string> quantized_companions(const std::string& name);

/// The matrix stored as `name` ("model.layers.0.mlp.up_proj.weight"), its tensors over the file's
/// bytes; undefined where it is stored plain. Throws UserError with file and tensor: a part missing
/// or misshapen, blocks other than 64 and 256, a table that is not bitsandbytes', scales that are
/// not finite. Shape and `stored` are the file's (8 bits do not say theirs: `stored` stays
/// bfloat16).
QuantizedMatrix read_quantized(const FindTensor& find, const std::string& name);

/// The matrix with its tensors on `device`.
QuantizedMatrix on_device(QuantizedMatrix matrix, at::Device device);

}  // namespace temper::trainer
