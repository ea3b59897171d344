// Safetensors files: the header is checked, then every tensor is looked at.
#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "tests/fuzz/driver.h"
#include "trainer/checkpoint/safetensors.h"

namespace temper::fuzz {
namespace {

void run(std::string_view, const std::filesystem::path& path) {
  try {
    const trainer::SafetensorsFile file(path);
    for (const std::string& name : file.names()) {
      const at::Tensor tensor = file.tensor(name);
      const auto* bytes = static_cast<const volatile char*>(tensor.const_data_ptr());
      if (tensor.nbytes() > 0) {
        static_cast<void>(bytes[0]);
        static_cast<void>(bytes[tensor.nbytes() - 1]);
      }
    }
  } catch (const UserError&) {
  }
}

std::string file_of(const std::string& header, size_t bytes) {
  std::string out;
  for (size_t i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i));
  return out + header + std::string(bytes, '\x3f');
}

}  // namespace

Target target() {
  return {
      .suffix = ".safetensors",
      .seeds =
          {file_of(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", 24),
           file_of(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2],)"
                   R"("data_offsets":[0,4]},"b":{"dtype":"I64","shape":[],"data_offsets":[4,12]}})",
                   12),
           file_of(R"({"e":{"dtype":"U8","shape":[0,7],"data_offsets":[0,0]}} )", 0)},
      .words = {"\"dtype\"", "\"shape\"", "\"data_offsets\"", "\"F16\"", "\"F64\"", "\"BOOL\"",
                "\"F8_E4M3\"", "[0,0]", "[-1]", "18446744073709551615", "9223372036854775807",
                "4294967296", "1.5", "null", ",", "{}", "__metadata__"},
      .run = run};
}

}  // namespace temper::fuzz
