#include "trainer/metrics/tensorboard.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <system_error>

#include <unistd.h>

#include "recipes/diagnostic.h"
#include "trainer/metrics/crc32c.h"

namespace temper::trainer {

namespace {

// Protobuf's wire format: a key (field number, wire type), then the value.
void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_integer(std::string& out, int field, uint64_t value) {
  put_varint(out, static_cast<uint64_t>(field) << 3 | 0);
  put_varint(out, value);
}

template <typename Value>
void put_fixed(std::string& out, int field, Value value) {
  put_varint(out, static_cast<uint64_t>(field) << 3 | (sizeof(Value) == 8 ? 1 : 5));
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void put_bytes(std::string& out, int field, const std::string& value) {
  put_varint(out, static_cast<uint64_t>(field) << 3 | 2);
  put_varint(out, value.size());
  out += value;
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5;
// SessionLog session_log = 7; }
std::string event(int64_t step) {
  std::string out;
  put_fixed(out, 1, now_seconds());
  put_integer(out, 2, static_cast<uint64_t>(step));
  return out;
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

void append_little_endian(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
}

// TFRecord: length, its checksum, the message, its checksum.
std::string record(const std::string& message) {
  std::string out;
  append_little_endian(out, message.size(), 8);
  append_little_endian(out, masked_crc(out), 4);
  out += message;
  append_little_endian(out, masked_crc(message), 4);
  return out;
}

// TensorBoard reads the files of a directory in the order of their names.
std::filesystem::path new_file(const std::filesystem::path& directory) {
  std::error_code failure;
  std::filesystem::create_directories(directory, failure);
  if (failure) throw RunError(directory.string() + ": " + failure.message());
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  char name[320];
  std::snprintf(name, sizeof name, "events.out.tfevents.%010lld.%09lld.%s",
                static_cast<long long>(nanoseconds / 1000000000),
                static_cast<long long>(nanoseconds % 1000000000), host);
  return directory / name;
}

}  // namespace

TensorboardWriter::TensorboardWriter(const std::filesystem::path& directory, int64_t resume_step)
    : file_(new_file(directory)) {
  std::string version = event(0);
  put_bytes(version, 3, "brain.Event:2");
  std::string session;
  put_integer(session, 1, 1);  // SessionLog { status = START }: events from this step on are purged
  std::string start = event(resume_step > 0 ? resume_step + 1 : 0);
  put_bytes(start, 7, session);
  file_.append(record(version) + record(start));
}

void TensorboardWriter::write(int64_t step, const MetricLine& line) {
  std::string summary;
  for (const auto& [name, number] : line) {
    std::string value;  // Summary.Value { string tag = 1; float simple_value = 2; }
    put_bytes(value, 1, name);
    put_fixed(value, 2, static_cast<float>(number));
    put_bytes(summary, 1, value);
  }
  std::string message = event(step);
  put_bytes(message, 5, summary);
  file_.append(record(message));
}

}  // namespace temper::trainer
