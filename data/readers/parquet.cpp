#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "data/io/module.h"
#include "data/readers/reader.h"
#include "recipes/diagnostic.h"

/// Arrow is loaded when a Parquet file is opened: it is 60 MB that other runs need not wait for. And it is bound to itself
/// (RTLD_DEEPBIND), because libparquet brings a simdjson of another version under the names of ours.
namespace temper::data {

namespace {

namespace fs = std::filesystem;

using OpenParquet = Reader*(const char*, void (*)(std::string_view, const std::string&));

}  // namespace

std::unique_ptr<Reader> open_parquet(const fs::path& file, const ReaderOptions&) {
  if (file.extension() != ".parquet") {
    throw UserError(file.string() + ": Parquet is compressed inside; expected a .parquet file as it was written");
  }
  static auto* const open = reinterpret_cast<OpenParquet*>(
      module_entry("parquet", "temper_open_parquet", "Arrow", file.string(), /*alone=*/true));
  return std::unique_ptr<Reader>(open(file.c_str(), require_text));
}

}  // namespace temper::data
