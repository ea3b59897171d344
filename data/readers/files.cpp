#include <algorithm>
#include <cctype>
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

// Whether the name has the word "train" in it: train.csv, my-train-00000.parquet, not training.csv.
bool is_train(const fs::path& file) {
  const std::string name = file.filename().string();
  const auto is_letter = [&](size_t i) {
    return i < name.size() && std::isalpha(static_cast<unsigned char>(name[i])) != 0;
  };
  for (size_t at = name.find("train"); at != std::string::npos; at = name.find("train", at + 1)) {
    if (!is_letter(at - 1) && !is_letter(at + 5)) return true;
  }
  return false;
}

std::vector<fs::path> folders(const fs::path& directory) {
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    if (entry.is_directory() && !entry.path().filename().string().starts_with('.'))
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// A hub data set keeps its files in data/ or beside its card, named after their split or in a
// folder of that name; Parquet copies are in default/. Without a split asked for, training data is
// meant.
std::vector<fs::path> find_data_set(const fs::path& directory) {
  for (const char* place : {"data", ".", "data/train", "train", "default/train", "default"}) {
    if (!fs::is_directory(directory / place)) continue;
    std::vector<fs::path> files = supported_files((directory / place).lexically_normal());
    if (std::any_of(files.begin(), files.end(), is_train)) {
      std::erase_if(files, [](const fs::path& file) { return !is_train(file); });
    }
    if (!files.empty()) return files;
  }
  return {};
}

std::vector<fs::path> data_set_directory(const fs::path& directory) {
  const std::vector<fs::path> files = find_data_set(directory);
  if (!files.empty()) return files;
  std::vector<std::string> with_data;
  for (const fs::path& folder : folders(directory)) {
    if (!find_data_set(folder).empty()) with_data.push_back(folder.string());
  }
  throw UserError(directory.string() + ": no data file in this directory; expected " +
                  (with_data.empty() ? "files that end in " + supported_suffixes()
                                     : "one of its data sets: " + join(with_data)));
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
