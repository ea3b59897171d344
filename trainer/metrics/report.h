#pragma once

#include <filesystem>

namespace temper::trainer {

/// report.html: one self-contained page (inline SVG, nothing from elsewhere): curves of every
/// metric, throughput, memory, samples, recipe, environment. Made from the run directory's own
/// files, so it can be made again at any time. Throws RunError.
void write_report(const std::filesystem::path& run_directory);

}  // namespace temper::trainer
