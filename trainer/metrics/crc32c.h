#pragma once

#include <cstdint>
#include <string_view>

namespace temper::trainer {

/// CRC-32C (Castagnoli), as TensorBoard's record files use it.
uint32_t crc32c(std::string_view bytes);

}  // namespace temper::trainer
