#include "trainer/models/quantized_files.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>
#include <string_view>

#include <ATen/ATen.h>

#include "data/io/json.h"
#include "recipes/diagnostic.h"
#include "trainer/ops/blockwise.h"

namespace temper::trainer {

namespace {

constexpr const char* kQuantState = ".quant_state.bitsandbytes__";
constexpr std::array kCompanions4 = {".absmax", ".quant_map", ".nested_absmax",
                                     ".nested_quant_map"};

struct Kind4 {
  const char* name;
  QuantKind kind;
};
constexpr std::array<Kind4, 2> kKinds4 = {{{"nf4", QuantKind::kNf4}, {"fp4", QuantKind::kFp4}}};

struct StoredDtype {
  const char* name;
  at::ScalarType type;
};
constexpr std::array<StoredDtype, 3> kDtypes = {
    {{"float32", at::kFloat}, {"bfloat16", at::kBFloat16}, {"float16", at::kHalf}}};

// "x.SCB" for "x.weight".
std::string sibling(const std::string& name, const std::string& last) {
  return name.substr(0, name.rfind('.') + 1) + last;
}

[[noreturn]] void fail(const std::string& file, const std::string& name, const std::string& what) {
  throw UserError(file + ": tensor '" + name + "': " + what);
}

// One matrix being read: its parts by name, each checked before use.
class Part {
 public:
  Part(const FindTensor& find, std::string name) : stored_(find(name)), name_(std::move(name)) {}

  bool exists() const { return stored_.tensor.defined(); }
  const at::Tensor& tensor() const { return stored_.tensor; }
  const std::string& file() const { return stored_.file; }

  [[noreturn]] void refuse(const std::string& what) const { fail(stored_.file, name_, what); }

  // `elements` of `type`, whatever the shape (it has changed over the versions), flat.
  at::Tensor of(at::ScalarType type, int64_t elements) const {
    if (stored_.tensor.scalar_type() != type || stored_.tensor.numel() != elements) {
      refuse("is " + std::to_string(stored_.tensor.numel()) + " of " +
             safetensors_text(stored_.tensor.scalar_type()) + ", must be " +
             std::to_string(elements) + " of " + safetensors_text(type));
    }
    return stored_.tensor.reshape(-1);
  }

  at::Tensor scales(int64_t elements) const {
    const at::Tensor values = of(at::kFloat, elements);
    if (!values.isfinite().all().item<bool>()) refuse("holds NaN or infinite values");
    return values;
  }

  // The codes stand for fixed values; a table is stored all the same. Powers of ten and equal
  // intervals may be rounded otherwise on other machines.
  void must_be(std::span<const float> table) const {
    constexpr float kTolerance = 1e-6f;
    const at::Tensor found = of(at::kFloat, static_cast<int64_t>(table.size()));
    for (size_t i = 0; i < table.size(); ++i) {
      if (std::fabs(found.const_data_ptr<float>()[i] - table[i]) <= kTolerance) continue;
      refuse("entry " + std::to_string(i) + " is " +
             std::to_string(found.const_data_ptr<float>()[i]) + ", bitsandbytes has " +
             std::to_string(table[i]) + ": an unknown table of values");
    }
  }

 private:
  static std::string safetensors_text(at::ScalarType type) { return c10::toString(type); }

  StoredTensor stored_;
  std::string name_;
};

Part required(const FindTensor& find, const std::string& name, const std::string& file) {
  Part part(find, name);
  if (!part.exists()) fail(file, name, "is missing, but the weights it belongs to are quantised");
  return part;
}

// The JSON object in the bytes of quant_state, with its values checked.
struct QuantState {
  int64_t rows = 0, columns = 0;
  at::ScalarType stored = at::kBFloat16;
  bool nested = false;
  float offset = 0;
};

QuantState parse_state(const Part& part, const char* kind) {
  const at::Tensor bytes = part.of(at::kByte, part.tensor().numel());
  const data::Json json =
      data::Json::parse(std::string_view(reinterpret_cast<const char*>(bytes.const_data_ptr()),
                                         static_cast<size_t>(bytes.numel())),
                        nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) part.refuse("is not a JSON object");
  const auto field = [&](const char* key) -> const data::Json& {
    static const data::Json none;
    const auto found = json.find(key);
    return found == json.end() ? none : *found;
  };
  const auto must_be = [&](const char* key, const data::Json& value) {
    if (field(key) == value) return;
    part.refuse(std::string(key) + " is " + field(key).dump() + ", must be " + value.dump());
  };
  must_be("quant_type", kind);
  must_be("blocksize", kBlock4);

  QuantState state;
  const data::Json& shape = field("shape");
  const auto extent = [](const data::Json& n) {
    return n.is_number_integer() && n > 0 && n < int64_t{1} << 31;
  };
  if (!shape.is_array() || shape.size() != 2 || !extent(shape[0]) || !extent(shape[1])) {
    part.refuse("shape is " + shape.dump() + ", must be the two sizes of a matrix");
  }
  state.rows = shape[0];
  state.columns = shape[1];

  const data::Json& dtype = field("dtype");
  const auto* known = std::find_if(kDtypes.begin(), kDtypes.end(),
                                   [&](const StoredDtype& row) { return dtype == row.name; });
  if (known == kDtypes.end()) {
    part.refuse("dtype is " + dtype.dump() + ", must be float32, bfloat16 or float16");
  }
  state.stored = known->type;

  state.nested = json.contains("nested_offset");
  if (!state.nested) return state;
  must_be("nested_blocksize", kBlock8);
  if (json.contains("nested_dtype")) must_be("nested_dtype", "float32");
  const data::Json& offset = field("nested_offset");
  if (!offset.is_number() || !std::isfinite(offset.get<float>())) {
    part.refuse("nested_offset is " + offset.dump() + ", must be a finite number");
  }
  state.offset = offset;
  return state;
}

QuantizedMatrix read_4bit(const FindTensor& find, const std::string& name, const Part& weight,
                          const Part& json, const Kind4& kind) {
  const QuantState state = parse_state(json, kind.name);
  const std::string& file = weight.file();
  QuantizedMatrix m;
  m.kind = kind.kind;
  m.rows = state.rows;
  m.columns = state.columns;
  m.stored = state.stored;
  const int64_t elements = m.rows * m.columns;
  const int64_t blocks = (elements + kBlock4 - 1) / kBlock4;

  // bnb_4bit_quant_storage keeps the same bytes in another type.
  const int64_t bytes = (elements + 1) / 2;
  if (static_cast<int64_t>(weight.tensor().nbytes()) != bytes) {
    weight.refuse("has " + std::to_string(weight.tensor().nbytes()) + " bytes, but a matrix of " +
                  std::to_string(m.rows) + " x " + std::to_string(m.columns) + " in 4 bits has " +
                  std::to_string(bytes));
  }
  m.codes = weight.tensor().reshape(-1).view(at::kByte).view({bytes, 1});
  required(find, name + ".quant_map", file).must_be({values_of_4bit(m.kind), 16});

  const Part absmax = required(find, name + ".absmax", file);
  if (!state.nested) {
    m.absmax = absmax.scales(blocks);
    return m;
  }
  m.absmax_codes = absmax.of(at::kByte, blocks);
  m.offset = state.offset;
  m.nested_absmax =
      required(find, name + ".nested_absmax", file).scales((blocks + kBlock8 - 1) / kBlock8);
  required(find, name + ".nested_quant_map", file).must_be(dynamic_code(true).values);
  return m;
}

QuantizedMatrix read_8bit(const FindTensor& find, const std::string& name, const Part& weight) {
  const Part scb = required(find, sibling(name, "SCB"), weight.file());
  if (weight.tensor().dim() != 2) weight.refuse("is not a matrix");
  const Part format(find, sibling(name, "weight_format"));
  if (format.exists() && format.of(at::kByte, 1).item<int>() != 0) {
    format.refuse(
        "is not 0: the weights are stored in an order of columns for one GPU; save them "
        "again with bitsandbytes 0.41 or newer");
  }
  QuantizedMatrix m;
  m.kind = QuantKind::kInt8;
  m.rows = weight.tensor().size(0);
  m.columns = weight.tensor().size(1);
  m.codes = weight.tensor();
  m.absmax = scb.scales(m.rows);
  return m;
}

}  // namespace

std::vector<std::string> quantized_companions(const std::string& name) {
  std::vector<std::string> names = {sibling(name, "SCB"), sibling(name, "weight_format")};
  for (const char* suffix : kCompanions4) names.push_back(name + suffix);
  for (const Kind4& kind : kKinds4) names.push_back(name + kQuantState + kind.name);
  return names;
}

QuantizedMatrix read_quantized(const FindTensor& find, const std::string& name) {
  const Part weight(find, name);
  if (!weight.exists()) return {};
  for (const Kind4& kind : kKinds4) {
    const Part json(find, name + kQuantState + kind.name);
    if (json.exists()) return read_4bit(find, name, weight, json, kind);
  }
  if (weight.tensor().scalar_type() == at::kChar) return read_8bit(find, name, weight);
  if (weight.tensor().scalar_type() == at::kByte) {
    weight.refuse("is packed, but '" + name + kQuantState +
                  "nf4' (or fp4), which says how, is "
                  "missing");
  }
  return {};
}

QuantizedMatrix on_device(QuantizedMatrix m, at::Device device) {
  for (at::Tensor* part : {&m.codes, &m.absmax, &m.absmax_codes, &m.nested_absmax}) {
    if (part->defined()) *part = part->to(device);
  }
  return m;
}

}  // namespace temper::trainer
