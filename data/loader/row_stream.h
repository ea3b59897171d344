#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/io/json.h"
#include "data/readers/row.h"
#include "data/shards/source.h"

/// The rows of one or several sources without end: each source file by file and then again, and of
/// several one row at a time, in the shares that their weights give. Reads no further than asked.
/// Where it stands is a few numbers, from which it goes on with the same rows: in O(1) in files
/// that are cut at lines, else after reading the file up to there once more.
namespace temper::data {

struct StreamedRow {
  Row row;
  std::string wrong;  // why the row is bad, or empty
  size_t source = 0;
};

class SourceRows;

/// One thread.
class RowStream {
 public:
  /// With `shuffle` the files of a source come in another order in each pass.
  RowStream(const std::vector<Source>& sources, bool shuffle, int64_t seed);
  ~RowStream();

  /// Throws UserError for a file that cannot be read on.
  void next(StreamedRow& row);
  /// Whether every source has been read through at least once.
  bool passed_once() const;

  Json position() const;
  /// Throws UserError where the files are no longer those of `position`.
  void go_to(const Json& position);

 private:
  std::vector<std::unique_ptr<SourceRows>> sources_;
  std::vector<double> weights_;
  std::vector<double> due_;  // how much each source is behind its share
};

}  // namespace temper::data
