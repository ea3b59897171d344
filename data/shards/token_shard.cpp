#include "data/shards/token_shard.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <hdf5.h>

#include "data/io/atomic_file.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

// Where the library is built without thread safety its calls must not meet.
std::mutex& hdf5_mutex() {
  static std::mutex mutex;
  return mutex;
}

// An HDF5 identifier and the call that closes it.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }
  bool ok() const { return id_ >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// Written whole and contiguous, so that the file can be mapped.
void write_array(hid_t file, const char* name, hid_t stored, hid_t memory, const void* data,
                 size_t count) {
  const hsize_t size = count;
  const Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose);
  const Handle how(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_layout(how, H5D_CONTIGUOUS);
  H5Pset_alloc_time(how, H5D_ALLOC_TIME_EARLY);
  H5Pset_obj_track_times(how, false);
  const Handle set(H5Dcreate2(file, name, stored, space, H5P_DEFAULT, how, H5P_DEFAULT), H5Dclose);
  if (!set.ok() || (count > 0 && H5Dwrite(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)) {
    throw RunError(std::string("cannot write data set ") + name);
  }
}

struct Array {
  const unsigned char* data;
  size_t count;
  size_t item_bytes;
};

}  // namespace

void TokenShardWriter::add(const Example& example, int64_t row_number) {
  TEMPER_CHECK(example.ids.size() == example.supervised.size(), "a mask entry for each id");
  for (size_t i = 0; i < example.supervised.size(); ++i) {
    const size_t bit = (ids_.size() + i) % 8;
    if (bit == 0) supervised_.push_back(0);
    if (example.supervised[i] != 0) supervised_.back() |= static_cast<uint8_t>(1U << bit);
  }
  ids_.insert(ids_.end(), example.ids.begin(), example.ids.end());
  offsets_.push_back(static_cast<int64_t>(ids_.size()));
  row_numbers_.push_back(row_number);
}

void TokenShardWriter::write(const std::filesystem::path& path) const {
  // Two holders of one claim, perhaps on two hosts, must not share it.
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  const std::string temporary = path.string() + ".tmp." + host + "." + std::to_string(::getpid()) +
                                "." + std::to_string(reinterpret_cast<uintptr_t>(this));
  try {
    const std::lock_guard lock(hdf5_mutex());
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    const Handle file(H5Fcreate(temporary.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
                      H5Fclose);
    if (!file.ok()) throw RunError("cannot create it");
    const bool wide = std::any_of(ids_.begin(), ids_.end(), [](int32_t id) {
      return id < 0 || id > std::numeric_limits<uint16_t>::max();
    });
    write_array(file, "ids", wide ? H5T_STD_I32LE : H5T_STD_U16LE, H5T_NATIVE_INT32, ids_.data(),
                ids_.size());
    write_array(file, "supervised", H5T_STD_U8LE, H5T_NATIVE_UINT8, supervised_.data(),
                supervised_.size());
    write_array(file, "offsets", H5T_STD_I64LE, H5T_NATIVE_INT64, offsets_.data(), offsets_.size());
    write_array(file, "row_numbers", H5T_STD_I64LE, H5T_NATIVE_INT64, row_numbers_.data(),
                row_numbers_.size());
    if (H5Fflush(file, H5F_SCOPE_LOCAL) < 0) throw RunError("cannot flush it");
  } catch (const RunError& error) {
    ::unlink(temporary.c_str());
    throw RunError(path.string() + ": " + error.what() + " (disk full or not writable?)");
  }
  const int fd = ::open(temporary.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  if (fd >= 0) ::close(fd);
  if (!synced || ::rename(temporary.c_str(), path.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    ::unlink(temporary.c_str());
    throw RunError(path.string() + ": cannot write: " + reason);
  }
  sync_directory(path.parent_path());
}

TokenShard::TokenShard(const std::filesystem::path& path) {
  const auto refuse = [&](const std::string& what) {
    throw RunError(path.string() + ": " + what + ": not a whole token shard");
  };
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) refuse(std::strerror(errno));
  struct stat status {};
  ::fstat(fd, &status);
  bytes_ = static_cast<size_t>(status.st_size);
  void* mapping = bytes_ == 0 ? MAP_FAILED : ::mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, fd, 0);
  ::close(fd);
  if (mapping == MAP_FAILED) refuse("cannot map it");
  mapping_ = mapping;
  try {
    const std::lock_guard lock(hdf5_mutex());
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
    if (!file.ok()) refuse("not readable as HDF5");
    const auto array = [&](const char* name) {
      const Handle set(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
      if (!set.ok()) refuse(std::string("without ") + name);
      const Handle space(H5Dget_space(set), H5Sclose);
      const Handle type(H5Dget_type(set), H5Tclose);
      const hssize_t count = H5Sget_simple_extent_npoints(space);
      const size_t item = H5Tget_size(type);
      const haddr_t offset = H5Dget_offset(set);
      if (count > 0 && (offset == HADDR_UNDEF || offset > bytes_ ||
                        static_cast<size_t>(count) > (bytes_ - offset) / item)) {
        refuse(std::string(name) + " lies outside the file");
      }
      const auto* data = static_cast<const unsigned char*>(mapping_) + (count > 0 ? offset : 0);
      return Array{data, static_cast<size_t>(std::max<hssize_t>(count, 0)), item};
    };
    const Array ids = array("ids"), mask = array("supervised"), offsets = array("offsets"),
                rows = array("row_numbers");
    if ((ids.item_bytes != 2 && ids.item_bytes != 4) || mask.item_bytes != 1 ||
        offsets.item_bytes != 8 || rows.item_bytes != 8 || offsets.count != rows.count + 1 ||
        mask.count != (ids.count + 7) / 8) {
      refuse("its arrays do not fit together");
    }
    wide_ = ids.item_bytes == 4;
    ids_ = ids.data;
    supervised_ = mask.data;
    // Copied, since HDF5 does not promise that a data set of 64-bit numbers starts at a multiple
    // of 8.
    offsets_.resize(offsets.count);
    std::memcpy(offsets_.data(), offsets.data, 8 * offsets.count);
    row_numbers_.resize(rows.count);
    if (rows.count > 0) std::memcpy(row_numbers_.data(), rows.data, 8 * rows.count);
    if (!std::is_sorted(offsets_.begin(), offsets_.end()) || offsets_.front() != 0 ||
        offsets_.back() != static_cast<int64_t>(ids.count)) {
      refuse("its offsets do not ascend");
    }
  } catch (...) {
    ::munmap(mapping_, bytes_);
    throw;
  }
}

TokenShard::~TokenShard() { ::munmap(mapping_, bytes_); }

Example TokenShard::tokens(int64_t start, int64_t length) const {
  TEMPER_CHECK(start >= 0 && length >= 0 && start + length <= offsets_.back(), "within the shard");
  Example example;
  const size_t count = static_cast<size_t>(length);
  example.ids.resize(count);
  example.supervised.resize(count);
  if (wide_) {
    std::memcpy(example.ids.data(), ids_ + 4 * start, 4 * count);
  } else {
    for (size_t i = 0; i < count; ++i) {
      uint16_t id;
      std::memcpy(&id, ids_ + 2 * (static_cast<size_t>(start) + i), sizeof id);
      example.ids[i] = id;
    }
  }
  for (int64_t i = 0; i < length; ++i) {
    example.supervised[static_cast<size_t>(i)] = supervised(start + i);
  }
  return example;
}

int64_t TokenShard::supervised_count(int64_t start, int64_t length) const {
  const int64_t end = start + length;
  int64_t count = 0;
  int64_t token = start;
  for (; token < end && token % 8 != 0; ++token) count += supervised(token);
  for (; token + 8 <= end; token += 8) count += std::popcount(supervised_[token / 8]);
  for (; token < end; ++token) count += supervised(token);
  return count;
}

}  // namespace temper::data
