#include "trainer/checkpoint/replaced_directory.h"

#include "data/io/atomic_file.h"
#include "recipes/diagnostic.h"

namespace temper::trainer {

namespace {

namespace fs = std::filesystem;

void refuse_to_replace_others(const fs::path& out,
                              const std::function<bool(const std::string&)>& is_ours) {
  if (!fs::exists(out)) return;
  if (!fs::is_directory(out)) throw UserError(out.string() + ": exists and is not a directory");
  for (const auto& entry : fs::directory_iterator(out)) {
    const std::string name = entry.path().filename().string();
    if (!is_ours(name)) {
      throw UserError(out.string() + ": exists and holds '" + name +
                      "', which no export writes: choose another directory or remove it");
    }
  }
}

void replace_directory(const fs::path& made, const fs::path& out) {
  const fs::path old = made.string() + ".old";
  fs::remove_all(old);
  if (fs::exists(out)) fs::rename(out, old);
  fs::rename(made, out);
  data::sync_directory(out.parent_path());
  fs::remove_all(old);
}

}  // namespace

void write_directory(const fs::path& out, const std::function<bool(const std::string&)>& is_ours,
                     const std::function<void(const fs::path&)>& write) {
  const fs::path target =
      fs::absolute(out).lexically_normal() / "";  // with or without a slash at its end
  const fs::path directory = target.parent_path();
  refuse_to_replace_others(directory, is_ours);
  const fs::path made =
      directory.parent_path() / ("." + directory.filename().string() + ".partial");
  try {
    fs::remove_all(made);
    fs::create_directories(made);
    write(made);
    replace_directory(made, directory);
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove_all(made, ignored);
    throw RunError(error.path1().string() + ": cannot export: " + error.code().message());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(made, ignored);
    throw;
  }
}

}  // namespace temper::trainer
