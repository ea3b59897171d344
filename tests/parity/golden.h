#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace temper {

/// The golden files of an area ("adapters"): those committed in tests/parity/golden, or freshly made
/// ones where TEMPER_GOLDENS says.
inline std::filesystem::path golden_files(const std::string& area) {
  if (const char* made = std::getenv("TEMPER_GOLDENS")) return std::filesystem::path(made) / area;
  const char* source = std::getenv("TEMPER_SOURCE_DIR");
  return std::filesystem::path(source != nullptr ? source : ".") / "tests/parity/golden" / area;
}

}  // namespace temper
