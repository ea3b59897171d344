#include "trainer/checkpoint/safetensors.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include <sys/mount.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/checkpoint/scratch.h"

namespace temper::trainer {
namespace {

std::string file_bytes(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, '\x01');
}

std::string finding(const std::filesystem::path& path) {
  try {
    SafetensorsFile file(path);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

struct BadFile {
  std::string title;
  std::string bytes;
  std::string expected;  // after "<path>: "
};

void PrintTo(const BadFile& bad, std::ostream* out) { *out << bad.title; }

std::string one(const std::string& fields) { return "{\"w\":{" + fields + "}}"; }
const std::string kGood = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";

class BadSafetensors : public testing::TestWithParam<BadFile> {};

TEST_P(BadSafetensors, IsRefusedWithOneLine) {
  const Scratch scratch;
  const auto path = scratch / "model.safetensors";
  write_all(path, GetParam().bytes);
  const std::string found = finding(path);
  EXPECT_EQ(found.substr(0, path.string().size() + 2), path.string() + ": ");
  EXPECT_NE(found.find(GetParam().expected), std::string::npos) << found;
  EXPECT_EQ(found.find('\n'), std::string::npos) << found;
}

INSTANTIATE_TEST_SUITE_P(
    Cases, BadSafetensors,
    testing::Values(
        BadFile{"Empty", "", "has 0 bytes, too short"},
        BadFile{"ShorterThanItsLength", "abc", "has 3 bytes, too short"},
        BadFile{"HeaderBeyondTheFile", file_bytes("{}", 0).replace(0, 1, "\x09"),
                "says its header has 9 bytes but only 2 follow"},
        BadFile{"HeaderAboveTheLimit", std::string("\x01\xe1\xf5\x05\0\0\0\0", 8) + "{}",
                "says its header has 100000001 bytes (at most 100000000)"},
        BadFile{"HeaderLengthAllOnes", std::string(8, '\xff') + "{}", "18446744073709551615 bytes"},
        BadFile{"ZippedPickle", std::string("PK\x03\x04\0\0\x08\x08\0\0", 10), "is a pickle"},
        BadFile{"PlainPickle", std::string("\x80\x02}q\x01(X\x05\0", 9), "is a pickle"},
        BadFile{"GitLfsPointer", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull"},
        BadFile{"NotJson", file_bytes("hello", 0), "the header is not JSON"},
        BadFile{"CutJson", file_bytes("{\"w\":{\"dtype\"", 0), "the header is not JSON"},
        BadFile{"TwoValues", file_bytes("{} {}", 0), "the header is not JSON"},
        BadFile{"NotUtf8", file_bytes("{\"\xff\":1}", 0), "the header is not JSON"},
        BadFile{"ListOnTop", file_bytes("[]", 0), "the header is a list, must be an object"},
        BadFile{"NumberOnTop", file_bytes("7", 0), "the header is a number, must be an object"},
        BadFile{"TensorIsANumber", file_bytes("{\"w\":1}", 0), "tensor 'w': is a number"},
        BadFile{"TensorIsNull", file_bytes("{\"w\":null}", 0), "tensor 'w': is null"},
        BadFile{"TensorIsAList", file_bytes("{\"w\":[]}", 0), "tensor 'w': is a list"},
        BadFile{"NoDtype", file_bytes(one(R"("shape":[2],"data_offsets":[0,8])"), 8),
                "tensor 'w': field 'dtype' is missing"},
        BadFile{"NoShape", file_bytes(one(R"("dtype":"F32","data_offsets":[0,8])"), 8),
                "tensor 'w': field 'shape' is missing"},
        BadFile{"NoOffsets", file_bytes(one(R"("dtype":"F32","shape":[2])"), 8),
                "tensor 'w': field 'data_offsets' is missing"},
        BadFile{"UnknownField", file_bytes(one(kGood + R"(,"stride":[1])"), 8),
                "tensor 'w': field 'stride' is not known"},
        BadFile{"FieldTwice", file_bytes(one(kGood + R"(,"shape":[2])"), 8),
                "tensor 'w': field 'shape' stands twice"},
        BadFile{"NameTwice", file_bytes("{\"w\":{" + kGood + "},\"w\":{" + kGood + "}}", 8),
                "tensor 'w': stands twice"},
        BadFile{"UnknownDtype",
                file_bytes(one(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])"), 8),
                "tensor 'w': dtype 'F31' is not known (known: F64, F32,"},
        BadFile{"DtypeIsANumber",
                file_bytes(one(R"("dtype":32,"shape":[2],"data_offsets":[0,8])"), 8),
                "tensor 'w': dtype is a number, must be a string"},
        BadFile{"ShapeIsANumber",
                file_bytes(one(R"("dtype":"F32","shape":2,"data_offsets":[0,8])"), 8),
                "tensor 'w': shape is a number, must be a list"},
        BadFile{"NegativeExtent",
                file_bytes(one(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), 8),
                "tensor 'w': shape holds a negative number"},
        BadFile{"FractionalExtent",
                file_bytes(one(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), 8),
                "tensor 'w': shape holds 2.0"},
        BadFile{"NestedShape",
                file_bytes(one(R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])"), 8),
                "tensor 'w': shape holds a list"},
        BadFile{"ObjectInShape",
                file_bytes(one(R"("dtype":"F32","shape":[{}],"data_offsets":[0,8])"), 8),
                "tensor 'w': shape holds an object"},
        BadFile{
            "ExtentAbove63Bits",
            file_bytes(one(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8])"),
                       8),
            "tensor 'w': shape: 9223372036854775808 is too large"},
        BadFile{
            "ProductOverflows",
            file_bytes(one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"),
                       0),
            "tensor 'w': shape [4294967296, 4294967296] is too large"},
        BadFile{
            "ProductOverflowsBehindAZero",
            file_bytes(
                one(R"("dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0])"), 0),
            "is too large"},
        BadFile{"OneOffset", file_bytes(one(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), 8),
                "tensor 'w': data_offsets has 1 numbers, must be 2"},
        BadFile{"OffsetsBackwards",
                file_bytes(one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), 8),
                "tensor 'w': data_offsets [8, 0] end before they begin"},
        BadFile{"OffsetsBeyondTheFile", file_bytes(one(kGood), 7),
                "tensor 'w': data_offsets [0, 8] reach beyond the file, which has 7 bytes"},
        BadFile{
            "OffsetsOf64Bits",
            file_bytes(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615])"),
                       8),
            "reach beyond the file"},
        BadFile{"ShapeAgainstOffsets",
                file_bytes(one(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), 8),
                "tensor 'w': shape [3] of F32 needs 12 bytes but data_offsets [0, 8] hold 8"},
        BadFile{"Overlap",
                file_bytes("{\"a\":{" + kGood +
                               R"(},"b":{"dtype":"U8","shape":[6],"data_offsets":[4,10]}})",
                           10),
                "tensor 'b': begins at byte 4 but the tensors before it end at 8 (overlap)"},
        BadFile{"SameBytesTwice", file_bytes("{\"a\":{" + kGood + "},\"b\":{" + kGood + "}}", 8),
                "(overlap)"},
        BadFile{"Hole",
                file_bytes("{\"a\":{" + kGood +
                               R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":[9,11]}})",
                           11),
                "tensor 'b': begins at byte 9 but the tensors before it end at 8 (hole)"},
        BadFile{"HoleInFront",
                file_bytes(one(R"("dtype":"F32","shape":[2],"data_offsets":[4,12])"), 12),
                "(hole)"},
        BadFile{"BytesOfNoTensor", file_bytes(one(kGood), 9),
                "1 bytes at the end belong to no tensor"},
        BadFile{"MetadataIsAList", file_bytes("{\"__metadata__\":[]}", 0),
                "__metadata__: is a list"},
        BadFile{"MetadataHoldsANumber", file_bytes("{\"__metadata__\":{\"a\":1}}", 0),
                "__metadata__: 'a' is a number, must be a string"},
        BadFile{"NameWithALineBreak", file_bytes(R"({"a\nb":1})", 0), "tensor 'a?b': is a number"}),
    [](const auto& bad) { return bad.param.title; });

TEST(Safetensors, MissingFileAndDirectoryAreUserErrors) {
  const Scratch scratch;
  EXPECT_NE(finding(scratch / "none").find("none: cannot be read: No such file"),
            std::string::npos);
  EXPECT_NE(finding(scratch.path()).find(": is not a file"), std::string::npos);
}

TEST(Safetensors, AMillionNamesAreCheckedInSeconds) {
  const Scratch scratch;
  std::string header = "{";
  for (int i = 0; i < 1000000; ++i) {
    if (i > 0) header += ",";
    header += "\"" + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  write_all(scratch / "many", file_bytes(header + "}", 0));
  EXPECT_EQ(SafetensorsFile(scratch / "many").names().size(), 1000000u);
}

TEST(Safetensors, WhatIsWrittenIsReadBack) {
  const Scratch scratch;
  const NamedTensors tensors = {
      {"bytes", at::arange(3, at::kByte)},
      {"half", at::arange(4, at::kHalf)},
      {"scalar", at::full({}, 2.5, at::kDouble)},
      {"matrix \"q\"", at::arange(6, at::kFloat).view({2, 3})},
      {"none", at::empty({0, 5}, at::kLong)},
      {"bf16", at::arange(5, at::kBFloat16)},
      {"flags", at::ones({3}, at::kBool)},
      {"ids", at::arange(3, at::kInt)},
  };
  const FileDigest digest =
      write_safetensors(scratch / "x", tensors, {{"format", "pt"}, {"by", "a\nb"}});
  const SafetensorsFile file(scratch / "x");
  EXPECT_EQ(digest.bytes, std::filesystem::file_size(scratch / "x"));
  EXPECT_EQ(digest.xxh3, digest_of(scratch / "x").xxh3);
  EXPECT_EQ(file.metadata().at("by"), "a\nb");
  EXPECT_EQ(file.names().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(file.dtype(name), tensor.scalar_type()) << name;
    EXPECT_EQ(file.shape(name), tensor.sizes().vec()) << name;
    EXPECT_TRUE(at::equal(file.tensor(name), tensor)) << name;
  }
  EXPECT_FALSE(file.contains("other"));
  EXPECT_THROW(file.tensor("other"), UserError);
}

TEST(Safetensors, TensorsOutliveTheFileObject) {
  const Scratch scratch;
  write_safetensors(scratch / "x", {{"a", at::arange(4, at::kFloat)}});
  const at::Tensor kept = SafetensorsFile(scratch / "x").tensor("a");
  std::filesystem::remove(scratch / "x");
  EXPECT_EQ(kept.sum().item<float>(), 6.0f);
}

TEST(Safetensors, UnalignedTensorsAreReadThroughACopy) {
  const Scratch scratch;
  std::string bytes = file_bytes(
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
      1);
  const float value = 1.25f;
  bytes.append(reinterpret_cast<const char*>(&value), 4);
  write_all(scratch / "x", bytes);
  EXPECT_EQ(SafetensorsFile(scratch / "x").tensor("b").item<float>(), 1.25f);
}

TEST(Safetensors, ConversionRoundsToNearestEvenAndLeavesIntegersAlone) {
  const Scratch scratch;
  // bf16 has 8 bits of precision: 257 lies between 256 and 258, 259 between 258 and 260.
  write_safetensors(
      scratch / "x",
      {{"f", at::tensor({257.0f, 259.0f, -257.0f})}, {"i", at::tensor({257}, at::kInt)}}, {},
      at::kBFloat16);
  const SafetensorsFile file(scratch / "x");
  EXPECT_EQ(file.dtype("f"), at::kBFloat16);
  EXPECT_TRUE(at::equal(file.tensor("f").to(at::kFloat), at::tensor({256.0f, 260.0f, -256.0f})));
  EXPECT_EQ(file.tensor("i").item<int>(), 257);
}

TEST(Safetensors, ConversionOfSeveralPiecesEqualsConversionAtOnce) {
  const Scratch scratch;
  const at::Tensor large = at::arange((1 << 21) + 3, at::kFloat).mul_(1.0f / 7);
  write_safetensors(scratch / "x", {{"f", large}}, {}, at::kBFloat16);
  EXPECT_TRUE(at::equal(SafetensorsFile(scratch / "x").tensor("f"), large.to(at::kBFloat16)));
}

TEST(Safetensors, ValuesBeyondFp16AreRefusedAndNothingIsLeft) {
  const Scratch scratch;
  EXPECT_THROW(
      write_safetensors(scratch / "x", {{"f", at::tensor({1.0f, 70000.0f})}}, {}, at::kHalf),
      UserError);
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

TEST(Safetensors, AFullDiskIsNamedWithPathAndBytesAndTheOldFileStays) {
  const Scratch scratch;
  if (::mount("tmpfs", scratch.path().c_str(), "tmpfs", 0, "size=64k") != 0) {
    GTEST_SKIP() << "mounting a small file system needs root";
  }
  write_safetensors(scratch / "x", {{"a", at::ones({4}, at::kFloat)}});
  std::string message;
  try {
    write_safetensors(scratch / "x", {{"a", at::ones({100000}, at::kFloat)}});
  } catch (const RunError& error) {
    message = error.what();
  }
  const int64_t old_elements = SafetensorsFile(scratch / "x").tensor("a").numel();
  const auto files = std::distance(std::filesystem::directory_iterator(scratch.path()), {});
  ::umount2(scratch.path().c_str(), MNT_DETACH);
  EXPECT_NE(message.find((scratch / "x").string() + ": disk full: 400104 bytes needed"),
            std::string::npos)
      << message;
  EXPECT_EQ(old_elements, 4);
  EXPECT_EQ(files, 1);
}

TEST(Safetensors, AnUnwritableDirectoryIsARunError) {
  EXPECT_THROW(write_safetensors("/nowhere/at/all", {}), RunError);
}

}  // namespace
}  // namespace temper::trainer
