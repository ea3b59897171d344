#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/readers/bytes.h"
#include "data/readers/row.h"
#include "recipes/diagnostic.h"

/// Data files to rows, by the file's suffix (.jsonl .json .csv .txt .parquet; each also .gz or
/// .zst, Parquet excepted).
///
///     auto reader = open_reader("train.jsonl");
///     Row row;
///     while (reader->next(row)) { ... }
namespace temper::data {

/// One row is wrong, the next ones can still be read: data.on_bad_row decides. (Any other UserError
/// concerns the whole file.)
class BadRow : public UserError {
 public:
  using UserError::UserError;
};

/// A stream of rows. One thread.
class Reader {
 public:
  virtual ~Reader() = default;
  /// False at the end of the file. Throws BadRow "file:line: what: allowed", after which reading
  /// goes on with the next row; UserError for a file that cannot be read on.
  virtual bool next(Row& row) = 0;
};

/// `range`: of a file that is_cut_at_lines(), the part to read; its first row has number
/// `first_line`.
struct ReaderOptions {
  ByteRange range;
  int64_t first_line = 1;
};
/// Throws UserError for a suffix without a reader.
std::unique_ptr<Reader> open_reader(const std::filesystem::path& file,
                                    const ReaderOptions& options = {});

/// Whether there is a reader for the file's suffix.
bool is_supported(const std::filesystem::path& file);

/// Whether parts of the file that end at line ends can be read by themselves.
bool is_cut_at_lines(const std::filesystem::path& file);

/// The files that a recipe's data.*.path means, sorted: a file, a glob ("data/*.jsonl"), or a
/// directory (its supported files, or those of its data/ folder as hub data sets have them). Throws
/// UserError with the nearest name for what is missing.
std::vector<std::filesystem::path> data_files(const std::string& path);

/// ".jsonl, .json, ..." for messages.
std::string supported_suffixes();

/// Throws BadRow unless `text` is UTF-8 without NUL bytes.
void require_text(std::string_view text, const std::string& where);

// One constructor a format; the table in reader.cpp maps suffixes to them.
std::unique_ptr<Reader> open_jsonl(const std::filesystem::path& file, const ReaderOptions& options);
std::unique_ptr<Reader> open_json_array(const std::filesystem::path& file,
                                        const ReaderOptions& options);
std::unique_ptr<Reader> open_csv(const std::filesystem::path& file, const ReaderOptions& options);
std::unique_ptr<Reader> open_text(const std::filesystem::path& file, const ReaderOptions& options);
std::unique_ptr<Reader> open_parquet(const std::filesystem::path& file,
                                     const ReaderOptions& options);

}  // namespace temper::data
