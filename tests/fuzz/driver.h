#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

/// A fuzz target: what strangers' bytes go into. A program is one target and driver.cpp:
///
///     jsonl_fuzz 600            ten minutes
///     jsonl_fuzz 20 7           20 seconds with seed 7
///     jsonl_fuzz FILE ...       these inputs once, to see a crash again
///
/// Inputs are made by changing others; one that reaches new code is kept and changed further (where
/// the build says what is reached, as the sanitizer builds do). An input that ends the program, by
/// a sanitizer or by taking longer than 20 s, is left in the file that the first line names.
namespace temper::fuzz {

struct Target {
  std::string suffix;              // of the file that holds the input: ".jsonl"
  std::vector<std::string> seeds;  // inputs to begin with
  std::vector<std::string> words;  // what is worth putting in
  /// The input, and the file that it stands in. Whatever is refused as it should be is caught here;
  /// an exception that leaves is a failure.
  void (*run)(std::string_view input, const std::filesystem::path& file);
};

/// Each target's file defines it.
Target target();

}  // namespace temper::fuzz
