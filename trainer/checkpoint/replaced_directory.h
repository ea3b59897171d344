#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace temper::trainer {

/// Fills a directory that is complete or absent: `write` gets a temporary one beside `out`, which
/// takes out's place only when it has returned. What stands at `out` already is replaced when
/// `is_ours` knows every name in it, else refused (UserError). Throws RunError when the disk is
/// full; whatever `write` throws leaves `out` as it was.
void write_directory(const std::filesystem::path& out,
                     const std::function<bool(const std::string& name)>& is_ours,
                     const std::function<void(const std::filesystem::path& made)>& write);

}  // namespace temper::trainer
