#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/checkpoint/streamed_file.h"

/// The safetensors format (github.com/huggingface/safetensors): 8 bytes of header length, a JSON
/// header, the bytes.
namespace temper::trainer {

/// A read-only view of one file, memory-mapped; the header is checked whole before anything is used
/// (length, JSON, dtypes, shapes, offsets in range, no overlap, no holes, product of shape =
/// bytes). Throws UserError, one line naming file and tensor.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  std::vector<std::string> names() const;  // in file order
  bool contains(const std::string& name) const;
  std::vector<int64_t> shape(const std::string& name) const;
  at::ScalarType dtype(const std::string& name) const;
  /// A tensor over the mapped bytes (not to be written); keeps the mapping alive.
  at::Tensor tensor(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Writes contiguous tensors, those on a device one at a time, streaming, complete or absent (temporary name, fsync, rename).
/// With `floating` every floating-point tensor is stored in that type, rounded to nearest even a
/// piece at a time. Throws RunError (disk full, ...), and UserError for values that fp16 cannot
/// hold.
FileDigest write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                             const std::map<std::string, std::string>& metadata = {{"format",
                                                                                    "pt"}},
                             std::optional<at::ScalarType> floating = std::nullopt);

}  // namespace temper::trainer
