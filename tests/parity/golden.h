#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace temper {

/// What is committed in tests/parity/golden for an area ("adapters").
inline std::filesystem::path committed_golden_files(const std::string& area) {
  const char* source = std::getenv("TEMPER_SOURCE_DIR");
  return std::filesystem::path(source != nullptr ? source : ".") / "tests/parity/golden" / area;
}

/// The same, or what was freshly made, where TEMPER_GOLDENS says.
inline std::filesystem::path golden_files(const std::string& area) {
  const char* made = std::getenv("TEMPER_GOLDENS");
  return made != nullptr ? std::filesystem::path(made) / area : committed_golden_files(area);
}

}  // namespace temper
