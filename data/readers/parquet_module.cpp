#include <string>
#include <utility>

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>

#include "data/readers/reader.h"

namespace temper::data {

using RequireText = void(std::string_view, const std::string&);

namespace {

// The program's require_text(): simdjson is behind it, and here libparquet's own would answer (see parquet.cpp).
RequireText* require_utf8 = nullptr;

// One value of a column as JSON: nested lists and structs as in a JSONL file.
Json value_at(const arrow::Array& array, int64_t i, const std::string& where) {
  if (array.IsNull(i)) return nullptr;
  const auto as = [&]<typename T>(const T*) -> const T& { return static_cast<const T&>(array); };
  const auto number = [&]<typename T>(const T* type) { return Json(as(type).Value(i)); };
  const auto text = [&]<typename T>(const T* type) {
    std::string value(as(type).GetView(i));
    require_utf8(value, where);
    return Json(std::move(value));
  };
  const auto list = [&]<typename T>(const T* type) {
    const T& lists = as(type);
    Json result = Json::array();
    for (int64_t j = 0; j < lists.value_length(i); ++j) {
      result.push_back(value_at(*lists.values(), lists.value_offset(i) + j, where));
    }
    return result;
  };
  switch (array.type_id()) {
    case arrow::Type::STRING:
      return text(static_cast<const arrow::StringArray*>(nullptr));
    case arrow::Type::LARGE_STRING:
      return text(static_cast<const arrow::LargeStringArray*>(nullptr));
    case arrow::Type::STRING_VIEW:
      return text(static_cast<const arrow::StringViewArray*>(nullptr));
    case arrow::Type::BOOL:
      return number(static_cast<const arrow::BooleanArray*>(nullptr));
    case arrow::Type::INT8:
      return number(static_cast<const arrow::Int8Array*>(nullptr));
    case arrow::Type::INT16:
      return number(static_cast<const arrow::Int16Array*>(nullptr));
    case arrow::Type::INT32:
      return number(static_cast<const arrow::Int32Array*>(nullptr));
    case arrow::Type::INT64:
      return number(static_cast<const arrow::Int64Array*>(nullptr));
    case arrow::Type::UINT8:
      return number(static_cast<const arrow::UInt8Array*>(nullptr));
    case arrow::Type::UINT16:
      return number(static_cast<const arrow::UInt16Array*>(nullptr));
    case arrow::Type::UINT32:
      return number(static_cast<const arrow::UInt32Array*>(nullptr));
    case arrow::Type::UINT64:
      return number(static_cast<const arrow::UInt64Array*>(nullptr));
    case arrow::Type::FLOAT:
      return number(static_cast<const arrow::FloatArray*>(nullptr));
    case arrow::Type::DOUBLE:
      return number(static_cast<const arrow::DoubleArray*>(nullptr));
    case arrow::Type::LIST:
      return list(static_cast<const arrow::ListArray*>(nullptr));
    case arrow::Type::LARGE_LIST:
      return list(static_cast<const arrow::LargeListArray*>(nullptr));
    case arrow::Type::FIXED_SIZE_LIST:
      return list(static_cast<const arrow::FixedSizeListArray*>(nullptr));
    case arrow::Type::STRUCT: {
      const auto& fields = static_cast<const arrow::StructArray&>(array);
      Json result = Json::object();
      for (int f = 0; f < fields.num_fields(); ++f) {
        result[fields.type()->field(f)->name()] = value_at(*fields.field(f), i, where);
      }
      return result;
    }
    case arrow::Type::DICTIONARY: {
      const auto& coded = static_cast<const arrow::DictionaryArray&>(array);
      return value_at(*coded.dictionary(), coded.GetValueIndex(i), where);
    }
    default: {
      // Dates, decimals, ...: as Arrow prints them. (Binary columns such as images are no text:
      // null.)
      const auto scalar = array.GetScalar(i);
      if (!scalar.ok() || array.type_id() == arrow::Type::BINARY ||
          array.type_id() == arrow::Type::LARGE_BINARY) {
        return nullptr;
      }
      return (*scalar)->ToString();
    }
  }
}

// Row groups are read batch by batch; a table is never in memory.
class Parquet : public Reader {
 public:
  explicit Parquet(const std::filesystem::path& file) : file_(file.string()) {
    auto input = arrow::io::ReadableFile::Open(file_);
    check(input.status());
    auto reader = parquet::arrow::OpenFile(*input, arrow::default_memory_pool());
    check(reader.status());
    reader_ = std::move(*reader);
    auto batches = reader_->GetRecordBatchReader();
    check(batches.status());
    batches_ = std::move(*batches);
  }

  bool next(Row& row) override {
    while (batch_ == nullptr || next_ == batch_->num_rows()) {
      check(batches_->ReadNext(&batch_));
      if (batch_ == nullptr) return false;
      next_ = 0;
    }
    row.file = file_;
    row.number = ++number_;
    row.columns = Json::object();
    const int64_t i = next_++;
    for (int c = 0; c < batch_->num_columns(); ++c) {
      row.columns[batch_->column_name(c)] = value_at(*batch_->column(c), i, row.where());
    }
    return true;
  }

 private:
  void check(const arrow::Status& status) const {
    if (status.ok()) return;
    std::string what = status.message();
    what = what.substr(0, what.find('\n'));
    throw UserError(file_ + ": not readable as Parquet: " + what);
  }

  std::string file_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::shared_ptr<arrow::RecordBatchReader> batches_;
  std::shared_ptr<arrow::RecordBatch> batch_;
  int64_t next_ = 0;
  int64_t number_ = 0;
};

}  // namespace

}  // namespace temper::data

/// The module's only entry, see parquet.cpp. Throws as open_parquet() does.
extern "C" temper::data::Reader* temper_open_parquet(const char* file,
                                                     temper::data::RequireText require) {
  temper::data::require_utf8 = require;
  return std::make_unique<temper::data::Parquet>(file).release();
}
