#include "trainer/metrics/tensorboard.h"

#include <algorithm>
#include <cstring>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/checkpoint/scratch.h"
#include "trainer/metrics/crc32c.h"

namespace temper::trainer {
namespace {

/// A reader of its own for the wire format: fields by number.
struct Field {
  int number = 0;
  uint64_t integer = 0;  // varint and fixed
  std::string bytes;
};

std::vector<Field> fields_of(const std::string& message) {
  std::vector<Field> fields;
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(at++));
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.size()) {
    const uint64_t key = varint();
    Field field;
    field.number = static_cast<int>(key >> 3);
    const size_t size = (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : 0;
    if ((key & 7) == 0) {
      field.integer = varint();
    } else if ((key & 7) == 2) {
      const uint64_t length = varint();
      field.bytes = message.substr(at, length);
      at += length;
    } else {
      std::memcpy(&field.integer, message.data() + at, size);
      at += size;
    }
    fields.push_back(field);
  }
  return fields;
}

Field field(const std::string& message, int number) {
  for (const Field& one : fields_of(message)) {
    if (one.number == number) return one;
  }
  return {};
}

uint64_t little_endian(const std::string& bytes, size_t at, int size) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data() + at, static_cast<size_t>(size));
  return value;
}

uint32_t unmasked(uint64_t masked) {
  const uint32_t rotated = static_cast<uint32_t>(masked) - 0xa282ead8u;
  return (rotated >> 17) | (rotated << 15);
}

std::vector<std::string> events_in(const std::filesystem::path& file) {
  const std::string bytes = read_all(file);
  std::vector<std::string> events;
  for (size_t at = 0; at < bytes.size();) {
    const uint64_t length = little_endian(bytes, at, 8);
    EXPECT_EQ(unmasked(little_endian(bytes, at + 8, 4)), crc32c(bytes.substr(at, 8)));
    events.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(unmasked(little_endian(bytes, at + 12 + length, 4)), crc32c(events.back()));
    at += 16 + length;
  }
  return events;
}

std::vector<std::filesystem::path> files_in(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

TEST(Crc32c, KnowsTheCheckValue) { EXPECT_EQ(crc32c("123456789"), 0xe3069283u); }

TEST(Tensorboard, AFileBeginsWithItsVersionAndHoldsScalars) {
  const Scratch scratch;
  TensorboardWriter writer(scratch / "tensorboard", 0);
  writer.write(300, {{"loss", 2.5}, {"rewards/chosen", -1.0}});
  const auto files = files_in(scratch / "tensorboard");
  ASSERT_EQ(files.size(), 1u);
  EXPECT_TRUE(files[0].filename().string().starts_with("events.out.tfevents."));
  const std::vector<std::string> events = events_in(files[0]);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(field(events[0], 3).bytes, "brain.Event:2");
  EXPECT_EQ(field(events[2], 2).integer, 300u);
  double wall_time = 0;
  const uint64_t bits = field(events[2], 1).integer;
  std::memcpy(&wall_time, &bits, 8);
  EXPECT_GT(wall_time, 1.7e9);
  const std::vector<Field> values = fields_of(field(events[2], 5).bytes);
  ASSERT_EQ(values.size(), 2u);
  const auto number = [](const Field& value) {
    float result = 0;
    const auto simple = static_cast<uint32_t>(field(value.bytes, 2).integer);
    std::memcpy(&result, &simple, 4);
    return result;
  };
  EXPECT_EQ(field(values[0].bytes, 1).bytes, "loss");
  EXPECT_EQ(number(values[0]), 2.5f);
  EXPECT_EQ(field(values[1].bytes, 1).bytes, "rewards/chosen");
  EXPECT_EQ(number(values[1]), -1.0f);
}

TEST(Tensorboard, ResumingOpensALaterFileThatPurgesFromTheNextStep) {
  const Scratch scratch;
  { TensorboardWriter(scratch / "t", 0).write(11, {{"loss", 1}}); }
  const auto first = files_in(scratch / "t");
  { TensorboardWriter(scratch / "t", 10).write(11, {{"loss", 2}}); }
  const auto both = files_in(scratch / "t");
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[0], first[0]);  // TensorBoard reads them in the order of their names
  const std::vector<std::string> events = events_in(both[1]);
  EXPECT_EQ(field(events[1], 2).integer, 11u);
  EXPECT_EQ(field(field(events[1], 7).bytes, 1).integer, 1u);  // SessionLog START
}

TEST(Tensorboard, AnUnwritableDirectoryIsARunError) {
  EXPECT_THROW(TensorboardWriter("/dev/null/tensorboard", 0), RunError);
}

}  // namespace
}  // namespace temper::trainer
