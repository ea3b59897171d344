#include "data/readers/reader.h"

#include <array>

#include <simdjson.h>

namespace temper::data {

namespace {

struct Format {
  const char* suffix;
  std::unique_ptr<Reader> (*open)(const std::filesystem::path&, const ReaderOptions&);
  bool cut_at_lines;
};

constexpr std::array kFormats = {
    Format{".jsonl", open_jsonl, true},      Format{".json", open_json_array, false},
    Format{".csv", open_csv, false},         Format{".txt", open_text, true},
    Format{".parquet", open_parquet, false},
};

bool is_compressed(const std::filesystem::path& file) {
  return file.extension() == ".gz" || file.extension() == ".zst";
}

const Format* format_of(const std::filesystem::path& file) {
  const std::filesystem::path suffix =
      is_compressed(file) ? file.stem().extension() : file.extension();
  for (const Format& format : kFormats) {
    if (suffix == format.suffix) return &format;
  }
  return nullptr;
}

}  // namespace

std::string supported_suffixes() {
  std::vector<std::string> suffixes;
  for (const Format& format : kFormats) suffixes.push_back(format.suffix);
  return join(suffixes) + " (also .gz, .zst)";
}

bool is_supported(const std::filesystem::path& file) { return format_of(file) != nullptr; }

bool is_cut_at_lines(const std::filesystem::path& file) {
  const Format* format = format_of(file);
  return format != nullptr && format->cut_at_lines && !is_compressed(file);
}

std::unique_ptr<Reader> open_reader(const std::filesystem::path& file,
                                    const ReaderOptions& options) {
  const Format* format = format_of(file);
  if (format == nullptr) {
    throw UserError(file.string() + ": no reader for this suffix; expected one of " +
                    supported_suffixes());
  }
  return format->open(file, options);
}

void require_text(std::string_view text, const std::string& where) {
  if (text.find('\0') != std::string_view::npos) {
    throw BadRow(where + ": holds a NUL byte; expected UTF-8 text");
  }
  if (!simdjson::validate_utf8(text.data(), text.size())) {
    throw BadRow(where + ": is not UTF-8; expected UTF-8 text (iconv -t UTF-8 converts)");
  }
}

}  // namespace temper::data
