// Parquet files, as Arrow reads them for us.
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "data/readers/reader.h"
#include "recipes/diagnostic.h"
#include "tests/fuzz/driver.h"

namespace temper::fuzz {
namespace {

void run(std::string_view, const std::filesystem::path& file) {
  try {
    const auto reader = data::open_reader(file);
    data::Row row;
    for (bool more = true; more;) {
      try {
        more = reader->next(row);
      } catch (const data::BadRow&) {
      }
    }
  } catch (const UserError&) {
  }
}

}  // namespace

Target target() {
  Target target{.suffix = ".parquet", .seeds = {}, .words = {"PAR1"}, .run = run};
  const char* source = std::getenv("TEMPER_SOURCE_DIR");
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(source ? source : ".") / "tests/parity/golden/readers")) {
    if (entry.path().extension() != ".parquet") continue;
    std::ifstream file(entry.path(), std::ios::binary);
    target.seeds.emplace_back(std::istreambuf_iterator<char>(file),
                              std::istreambuf_iterator<char>());
  }
  return target;
}

}  // namespace temper::fuzz
