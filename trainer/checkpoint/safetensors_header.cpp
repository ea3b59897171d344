#include "trainer/checkpoint/safetensors_header.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_set>
#include <utility>

#include "data/io/json.h"
#include "recipes/diagnostic.h"

namespace temper::trainer {

namespace {

constexpr std::array<std::pair<std::string_view, at::ScalarType>, 16> kDtypes = {{
    {"F64", at::kDouble},
    {"F32", at::kFloat},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I16", at::kShort},
    {"I8", at::kChar},
    {"U64", at::kUInt64},
    {"U32", at::kUInt32},
    {"U16", at::kUInt16},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
    {"C64", at::kComplexFloat},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"F8_E5M2", at::kFloat8_e5m2},
}};

// Names come from the file: kept to one readable line.
std::string shown(std::string_view name) {
  std::string text = "'";
  for (const char c : name.substr(0, 120)) text += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  if (name.size() > 120) text += "...";
  return text + "'";
}

// Receives the parser's events, so that a header of a million tensors costs no tree of values, and
// names that stand twice are seen. Depth 1 is the object of tensors, 2 a tensor or the metadata, 3
// a list of numbers.
class HeaderReader {
 public:
  using Json = data::Json;
  HeaderReader(const std::string& file, SafetensorsHeader& header) : file_(file), header_(header) {}

  bool null() { return value("null"); }
  bool boolean(bool) { return value("a boolean"); }
  bool number_integer(Json::number_integer_t) { return value("a negative number"); }
  bool number_float(Json::number_float_t, const std::string& text) { return value(text.c_str()); }
  bool binary(Json::binary_t&) { return value("binary"); }

  bool number_unsigned(Json::number_unsigned_t number) {
    if (depth_ != 3) return value("a number");
    numbers_.push_back(number);
    return true;
  }

  bool string(std::string& text) {
    if (depth_ != 2 || (!in_metadata_ && field_ != "dtype")) return value("a string");
    if (in_metadata_) {
      header_.metadata[field_] = text;
    } else {
      const auto row = std::find_if(kDtypes.begin(), kDtypes.end(),
                                    [&](const auto& dtype) { return dtype.first == text; });
      if (row == kDtypes.end()) {
        std::vector<std::string> known;
        for (const auto& dtype : kDtypes) known.emplace_back(dtype.first);
        fail("dtype " + shown(text) + " is not known (known: " + join(known) + ")");
      }
      entry_.dtype = row->second;
    }
    return true;
  }

  bool start_object(size_t) {
    if (depth_ >= 2) return value("an object");
    ++depth_;
    fields_.clear();
    return true;
  }

  bool key(std::string& name) {
    if (depth_ == 1) {
      if (!names_.insert(name).second) {
        throw UserError(file_ + ": tensor " + shown(name) + ": stands twice in the header");
      }
      in_metadata_ = name == "__metadata__";
      entry_ = TensorEntry{};
      entry_.name = name;
      return true;
    }
    if (!in_metadata_ && name != "dtype" && name != "shape" && name != "data_offsets") {
      fail("field " + shown(name) + " is not known (known: dtype, shape, data_offsets)");
    }
    if (!fields_.insert(name).second) fail("field " + shown(name) + " stands twice");
    field_ = name;
    return true;
  }

  bool end_object() {
    if (depth_ == 2 && !in_metadata_) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (!fields_.contains(field)) fail(std::string("field '") + field + "' is missing");
      }
      header_.tensors.push_back(std::move(entry_));
    }
    --depth_;
    return true;
  }

  bool start_array(size_t) {
    if (depth_ != 2 || in_metadata_ || field_ == "dtype") return value("a list");
    ++depth_;
    numbers_.clear();
    return true;
  }

  bool end_array() {
    --depth_;
    if (field_ == "shape") {
      for (const uint64_t extent : numbers_) {
        if (extent > INT64_MAX) fail("shape: " + std::to_string(extent) + " is too large");
        entry_.shape.push_back(static_cast<int64_t>(extent));
      }
    } else {
      if (numbers_.size() != 2) {
        fail("data_offsets has " + std::to_string(numbers_.size()) + " numbers, must be 2");
      }
      entry_.begin = numbers_[0];
      entry_.end = numbers_[1];
    }
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) {
    throw UserError(file_ + ": the header is not JSON (byte " + std::to_string(position) +
                    "): not a safetensors file, or a damaged one");
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    const std::string where = in_metadata_ ? "__metadata__" : "tensor " + shown(entry_.name);
    throw UserError(file_ + ": " + where + ": " + what);
  }

  // A value that may not stand here.
  [[noreturn]] bool value(const char* found) const {
    if (depth_ == 0) throw UserError(file_ + ": the header is " + found + ", must be an object");
    if (depth_ == 1) fail(std::string("is ") + found + ", must be an object");
    if (in_metadata_) fail(shown(field_) + " is " + found + ", must be a string");
    if (depth_ == 3) fail(field_ + " holds " + found + ", must hold whole numbers from 0 on");
    fail(field_ + " is " + found +
         (field_ == "dtype" ? ", must be a string" : ", must be a list of whole numbers"));
  }

  const std::string& file_;
  SafetensorsHeader& header_;
  std::unordered_set<std::string> names_;
  std::unordered_set<std::string> fields_;
  std::string field_;
  TensorEntry entry_;
  std::vector<uint64_t> numbers_;
  int depth_ = 0;
  bool in_metadata_ = false;
};

// Bytes that shape and dtype ask for; unset when that does not fit 64 bits (zero extents hide no
// overflow: strides are products of the others).
std::optional<uint64_t> bytes_of(const TensorEntry& entry) {
  int64_t product = static_cast<int64_t>(c10::elementSize(entry.dtype));
  bool empty = false;
  for (const int64_t extent : entry.shape) {
    empty = empty || extent == 0;
    if (__builtin_mul_overflow(product, std::max<int64_t>(extent, 1), &product))
      return std::nullopt;
  }
  return empty ? 0 : static_cast<uint64_t>(product);
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::vector<std::string> extents;
  for (const int64_t extent : shape) extents.push_back(std::to_string(extent));
  return "[" + join(extents) + "]";
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t data_bytes,
                                           const std::string& file) {
  SafetensorsHeader header;
  HeaderReader reader(file, header);
  data::Json::sax_parse(json.begin(), json.end(), &reader);

  for (const TensorEntry& entry : header.tensors) {
    const auto fail = [&](const std::string& what) {
      throw UserError(file + ": tensor " + shown(entry.name) + ": " + what);
    };
    const std::string offsets =
        "data_offsets [" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + "]";
    if (entry.begin > entry.end) fail(offsets + " end before they begin");
    if (entry.end > data_bytes) {
      fail(offsets + " reach beyond the file, which has " + std::to_string(data_bytes) +
           " bytes of tensors: truncated or damaged");
    }
    const std::optional<uint64_t> wanted = bytes_of(entry);
    if (!wanted) fail("shape " + shape_text(entry.shape) + " is too large");
    if (*wanted != entry.end - entry.begin) {
      fail("shape " + shape_text(entry.shape) + " of " + safetensors_dtype(entry.dtype) +
           " needs " + std::to_string(*wanted) + " bytes but " + offsets + " hold " +
           std::to_string(entry.end - entry.begin));
    }
  }

  std::stable_sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t covered = 0;
  for (const TensorEntry& entry : header.tensors) {
    if (entry.begin != covered) {
      throw UserError(file + ": tensor " + shown(entry.name) + ": begins at byte " +
                      std::to_string(entry.begin) + " but the tensors before it end at " +
                      std::to_string(covered) + (entry.begin < covered ? " (overlap)" : " (hole)"));
    }
    covered = entry.end;
  }
  if (covered != data_bytes) {
    throw UserError(file + ": " + std::to_string(data_bytes - covered) +
                    " bytes at the end belong to no tensor: damaged");
  }
  return header;
}

std::string safetensors_dtype(at::ScalarType type) {
  const auto row = std::find_if(kDtypes.begin(), kDtypes.end(),
                                [&](const auto& dtype) { return dtype.second == type; });
  TEMPER_CHECK(row != kDtypes.end(), std::string("safetensors has no ") + c10::toString(type));
  return std::string(row->first);
}

}  // namespace temper::trainer
