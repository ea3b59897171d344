#include <algorithm>
#include <cerrno>
#include <cstring>

#include <glob.h>
#include <unistd.h>

#include "data/readers/reader.h"

namespace temper::data {

namespace {

namespace fs = std::filesystem;

std::vector<fs::path> supported_files(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    // dataset_infos.json describes a hub data set and holds no rows.
    if (entry.is_regular_file() && !name.starts_with('.') && name != "dataset_infos.json" &&
        is_supported(entry.path())) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

// A hub data set keeps its files in data/, named after their split: without a split asked for,
// training data is meant.
std::vector<fs::path> data_set_directory(const fs::path& directory) {
  std::vector<fs::path> files;
  if (fs::is_directory(directory / "data")) files = supported_files(directory / "data");
  if (files.empty()) files = supported_files(directory);
  const auto is_train = [](const fs::path& file) {
    return file.filename().string().starts_with("train");
  };
  if (std::any_of(files.begin(), files.end(), is_train)) {
    std::erase_if(files, [&](const fs::path& file) { return !is_train(file); });
  }
  if (files.empty()) {
    throw UserError(directory.string() +
                    ": no data file in this directory; expected files that end in " +
                    supported_suffixes());
  }
  return files;
}

std::vector<fs::path> matches(const std::string& pattern) {
  glob_t found{};
  std::vector<fs::path> files;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) files.emplace_back(found.gl_pathv[i]);
  }
  ::globfree(&found);
  std::erase_if(files, [](const fs::path& file) { return fs::is_directory(file); });
  return files;
}

[[noreturn]] void refuse_missing(const fs::path& path) {
  const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code ignored;
  if (!fs::is_directory(parent, ignored)) {
    throw UserError(path.string() + ": no such file: the directory " + parent.string() +
                    " does not exist");
  }
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent, ignored)) {
    names.push_back(entry.path().filename().string());
  }
  const std::string nearest = nearest_name(path.filename().string(), names);
  throw UserError(
      path.string() + ": no such file or directory" +
      (nearest.empty() ? "" : "; did you mean " + (path.parent_path() / nearest).string() + "?"));
}

}  // namespace

std::vector<fs::path> data_files(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return data_set_directory(path);
  std::vector<fs::path> files = {path};
  if (!fs::exists(path, ignored)) {
    if (path.find_first_of("*?[") == std::string::npos) refuse_missing(path);
    files = matches(path);
    if (files.empty()) throw UserError(path + ": no file matches this pattern");
  }
  for (const fs::path& file : files) {
    if (!is_supported(file)) {
      throw UserError(file.string() + ": no reader for this suffix; expected one of " +
                      supported_suffixes());
    }
    if (::access(file.c_str(), R_OK) != 0) {
      throw UserError(file.string() + ": cannot read: " + std::strerror(errno));
    }
  }
  return files;
}

}  // namespace temper::data
