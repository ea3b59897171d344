#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <c10/core/ScalarType.h>

/// The JSON header of a safetensors file, read with suspicion: nothing in it is used before all of
/// it has been checked.
namespace temper::trainer {

constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;  // the reference implementation's limit

struct TensorEntry {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // in the bytes after the header
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // by position in the file
  std::map<std::string, std::string> metadata;
};

/// Checks JSON, fields, names, dtypes, shapes, and that the tensors cover `data_bytes` without
/// overlap or hole. Throws UserError "file: tensor 'x': what".
SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t data_bytes,
                                           const std::string& file);

/// "F32" for at::kFloat; throws std::logic_error for a type that the format does not have.
std::string safetensors_dtype(at::ScalarType type);

}  // namespace temper::trainer
