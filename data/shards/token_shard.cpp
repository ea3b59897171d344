#include "data/shards/token_shard.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <hdf5.h>

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

  // Copied, since HDF5 does not promise that a data set of 64-bit numbers starts at a multiple
  // of 8.
  std::vector<int64_t> numbers() const {
    std::vector<int64_t> copy(count);
    if (count > 0) std::memcpy(copy.data(), data, 8 * count);
    return copy;
  }
};

// Whether `ends` divide `total` things into `parts` runs.
bool divide(const std::vector<int64_t>& ends, size_t parts, size_t total) {
  return ends.size() == parts + 1 && ends.front() == 0 &&
         ends.back() == static_cast<int64_t>(total) && std::is_sorted(ends.begin(), ends.end());
}

}  // namespace

void TokenShardWriter::add(const TokenizedRow& row, int64_t row_number) {
  for (const Example& document : row.documents) {
    TEMPER_CHECK(document.ids.size() == document.supervised.size(), "a mask entry for each id");
    for (size_t i = 0; i < document.supervised.size(); ++i) {
      const size_t bit = (ids_.size() + i) % 8;
      if (bit == 0) supervised_.push_back(0);
      if (document.supervised[i] != 0) supervised_.back() |= static_cast<uint8_t>(1U << bit);
    }
    ids_.insert(ids_.end(), document.ids.begin(), document.ids.end());
    offsets_.push_back(static_cast<int64_t>(ids_.size()));
  }
  documents_.push_back(static_cast<int64_t>(offsets_.size()) - 1);
  row_numbers_.push_back(row_number);
  columns_ += row.columns;
  column_ends_.push_back(static_cast<int64_t>(columns_.size()));
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
    const auto write_numbers = [&](const char* name, const std::vector<int64_t>& numbers) {
      write_array(file, name, H5T_STD_I64LE, H5T_NATIVE_INT64, numbers.data(), numbers.size());
    };
    write_numbers("offsets", offsets_);
    write_numbers("documents", documents_);
    write_numbers("row_numbers", row_numbers_);
    write_array(file, "columns", H5T_STD_U8LE, H5T_NATIVE_UINT8, columns_.data(), columns_.size());
    write_numbers("column_ends", column_ends_);
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
                documents = array("documents"), rows = array("row_numbers"),
                columns = array("columns"), column_ends = array("column_ends");
    const auto wide_numbers = [](const Array& numbers) { return numbers.item_bytes == 8; };
    if ((ids.item_bytes != 2 && ids.item_bytes != 4) || mask.item_bytes != 1 ||
        columns.item_bytes != 1 || mask.count != (ids.count + 7) / 8 || !wide_numbers(offsets) ||
        !wide_numbers(documents) || !wide_numbers(rows) || !wide_numbers(column_ends)) {
      refuse("its arrays do not fit together");
    }
    wide_ = ids.item_bytes == 4;
    ids_ = ids.data;
    supervised_ = mask.data;
    columns_ = reinterpret_cast<const char*>(columns.data);
    offsets_ = offsets.numbers();
    documents_ = documents.numbers();
    row_numbers_ = rows.numbers();
    column_ends_ = column_ends.numbers();
    if (offsets_.empty() || !divide(offsets_, offsets_.size() - 1, ids.count) ||
        !divide(documents_, row_numbers_.size(), offsets_.size() - 1) ||
        !divide(column_ends_, row_numbers_.size(), columns.count)) {
      refuse("its offsets do not ascend");
    }
  } catch (...) {
    ::munmap(mapping_, bytes_);
    throw;
  }
}

TokenShard::TokenShard(TokenShardWriter rows)
    : in_memory_(std::move(rows)),
      wide_(true),
      ids_(reinterpret_cast<const unsigned char*>(in_memory_.ids_.data())),
      supervised_(in_memory_.supervised_.data()),
      columns_(in_memory_.columns_.data()),
      offsets_(std::move(in_memory_.offsets_)),
      documents_(std::move(in_memory_.documents_)),
      row_numbers_(std::move(in_memory_.row_numbers_)),
      column_ends_(std::move(in_memory_.column_ends_)) {}

TokenShard::~TokenShard() {
  if (mapping_ != nullptr) ::munmap(mapping_, bytes_);
}

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
