#include "trainer/checkpoint/safetensors.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ATen/ATen.h>

#include "data/io/json.h"
#include "recipes/diagnostic.h"
#include "trainer/checkpoint/safetensors_header.h"

namespace temper::trainer {

namespace {

constexpr size_t kLengthBytes = 8;
constexpr int64_t kConvertElements = int64_t{1} << 20;  // converted and written at a time

uint64_t read_length(const char* bytes) {
  uint64_t length = 0;  // little-endian, as every platform of ours is
  std::memcpy(&length, bytes, kLengthBytes);
  return length;
}

class Mapping {
 public:
  explicit Mapping(const std::filesystem::path& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw UserError(path.string() + ": cannot be read: " + std::strerror(errno));
    struct stat info {};
    const bool regular = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    size_ = regular ? static_cast<size_t>(info.st_size) : 0;
    if (size_ > 0) {
      void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
      if (address != MAP_FAILED) data_ = static_cast<char*>(address);
    }
    const int reason = errno;
    ::close(fd);
    if (!regular) throw UserError(path.string() + ": is not a file");
    if (size_ > 0 && !data_) {
      throw UserError(path.string() + ": cannot be mapped: " + std::strerror(reason));
    }
  }
  ~Mapping() {
    if (data_) ::munmap(data_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
};

// What people rename to .safetensors, or git leaves in its place.
void refuse_other_formats(std::string_view bytes, const std::string& file) {
  if (bytes.starts_with("PK\x03\x04") || bytes.starts_with("\x80\x02")) {
    throw UserError(file +
                    ": is a pickle (torch.save), not safetensors: convert it with save_pretrained");
  }
  if (bytes.starts_with("version https://git-lfs")) {
    throw UserError(file + ": is a git-lfs pointer, not the file itself: run git lfs pull");
  }
}

}  // namespace

struct SafetensorsFile::State {
  explicit State(const std::filesystem::path& path) : file(path.string()), mapping(path) {
    const std::string_view bytes(mapping.data(), mapping.size());
    if (bytes.size() < kLengthBytes) {
      throw UserError(file + ": has " + std::to_string(bytes.size()) +
                      " bytes, too short for a safetensors file: truncated?");
    }
    const uint64_t length = read_length(bytes.data());
    if (length > kMaxSafetensorsHeader) {
      refuse_other_formats(bytes, file);
      throw UserError(file + ": says its header has " + std::to_string(length) +
                      " bytes (at most " + std::to_string(kMaxSafetensorsHeader) +
                      "): not a safetensors file, or a damaged one");
    }
    if (length > bytes.size() - kLengthBytes) {
      throw UserError(file + ": says its header has " + std::to_string(length) +
                      " bytes but only " + std::to_string(bytes.size() - kLengthBytes) +
                      " follow: truncated?");
    }
    data = mapping.data() + kLengthBytes + length;
    header = parse_safetensors_header(bytes.substr(kLengthBytes, length),
                                      bytes.size() - kLengthBytes - length, file);
    for (const TensorEntry& entry : header.tensors) by_name.emplace(entry.name, &entry);
  }

  const TensorEntry& at(const std::string& name) const {
    const auto found = by_name.find(name);
    if (found == by_name.end()) throw UserError(file + ": has no tensor '" + name + "'");
    return *found->second;
  }

  std::string file;
  Mapping mapping;
  char* data = nullptr;
  SafetensorsHeader header;
  std::unordered_map<std::string_view, const TensorEntry*> by_name;
};

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : state_(std::make_shared<const State>(path)) {}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const TensorEntry& entry : state_->header.tensors) names.push_back(entry.name);
  return names;
}

bool SafetensorsFile::contains(const std::string& name) const {
  return state_->by_name.contains(name);
}

std::vector<int64_t> SafetensorsFile::shape(const std::string& name) const {
  return state_->at(name).shape;
}

at::ScalarType SafetensorsFile::dtype(const std::string& name) const {
  return state_->at(name).dtype;
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const TensorEntry& entry = state_->at(name);
  char* bytes = state_->data + entry.begin;
  const auto options = at::TensorOptions().dtype(entry.dtype);
  if (reinterpret_cast<uintptr_t>(bytes) % c10::elementSize(entry.dtype) != 0) {
    at::Tensor copy =
        at::empty(entry.shape, options);  // the format allows any offset, processors do not
    if (entry.end > entry.begin) std::memcpy(copy.data_ptr(), bytes, entry.end - entry.begin);
    return copy;
  }
  return at::from_blob(
      bytes, entry.shape, [keep = state_](void*) {}, options);
}

const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return state_->header.metadata;
}

FileDigest write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                             const std::map<std::string, std::string>& metadata,
                             std::optional<at::ScalarType> floating) {
  const auto stored_type = [&](const at::Tensor& tensor) {
    return floating && at::isFloatingType(tensor.scalar_type()) ? *floating : tensor.scalar_type();
  };
  // Wide elements first, so that every tensor is aligned for mapped reading.
  std::vector<const NamedTensors::value_type*> order;
  for (const auto& named : tensors) order.push_back(&named);
  std::stable_sort(order.begin(), order.end(), [&](const auto* a, const auto* b) {
    return c10::elementSize(stored_type(a->second)) > c10::elementSize(stored_type(b->second));
  });

  std::unordered_set<std::string_view> names;
  std::string header = "{";
  if (!metadata.empty()) header += "\"__metadata__\":" + data::Json(metadata).dump();
  uint64_t offset = 0;
  for (const auto* named : order) {
    const auto& [name, tensor] = *named;
    TEMPER_CHECK(tensor.is_contiguous(), name + " must be contiguous");
    TEMPER_CHECK(names.insert(name).second, name + " stands twice");
    const at::ScalarType type = stored_type(tensor);
    const uint64_t end = offset + static_cast<uint64_t>(tensor.numel()) * c10::elementSize(type);
    if (header.size() > 1) header += ",";
    header += data::Json(name).dump() + ":{\"dtype\":\"" + safetensors_dtype(type) +
              "\",\"shape\":" + data::Json(tensor.sizes().vec()).dump() + ",\"data_offsets\":[" +
              std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  TEMPER_CHECK(header.size() <= kMaxSafetensorsHeader, "too many tensors for one file");

  const uint64_t length = header.size();
  StreamedFile file(path, kLengthBytes + length + offset);
  file.write(&length, kLengthBytes);
  file.write(header.data(), header.size());
  for (const auto* named : order) {
    const auto& [name, tensor] = *named;
    const at::ScalarType type = stored_type(tensor);
    const at::Tensor here = tensor.detach().cpu();
    if (type == here.scalar_type()) {
      file.write(here.const_data_ptr(), here.nbytes());
      continue;
    }
    const at::Tensor flat = here.view(-1);
    for (int64_t begin = 0; begin < flat.numel(); begin += kConvertElements) {
      const at::Tensor part =
          flat.slice(0, begin, std::min(begin + kConvertElements, flat.numel()));
      const at::Tensor converted = part.to(type);  // rounds to nearest, ties to even
      if (type == at::kHalf && at::isinf(converted).any().item<bool>() &&
          !at::isinf(part).any().item<bool>()) {
        throw UserError(path.string() + ": tensor '" + name +
                        "': has values above 65504, which fp16 cannot hold: use bf16 or fp32");
      }
      file.write(converted.const_data_ptr(), converted.nbytes());
    }
  }
  return file.commit();
}

}  // namespace temper::trainer
