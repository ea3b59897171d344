#include "trainer/checkpoint/manifest.h"

#include <charconv>
#include <cstdio>

#include "data/io/atomic_file.h"
#include "data/io/json.h"
#include "recipes/diagnostic.h"

namespace temper::trainer {

namespace {

constexpr const char* kFormat = "temper-checkpoint";
constexpr int kVersion = 1;

template <typename... Arguments>
std::string format(const char* pattern, Arguments... arguments) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, arguments...);
  return text;
}

data::Json to_json(const FileDigest& digest) {
  return {{"bytes", digest.bytes},
          {"xxh3", format("%016llx", static_cast<unsigned long long>(digest.xxh3))}};
}

FileDigest digest_from(const data::Json& json, const std::filesystem::path& file) {
  FileDigest digest{.bytes = json.at("bytes").get<uint64_t>()};
  const std::string hex = json.at("xxh3").get<std::string>();
  const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), digest.xxh3, 16);
  if (error != std::errc{} || end != hex.data() + hex.size()) {
    throw UserError(file.string() + ": xxh3 = \"" + hex + "\" is not a checksum");
  }
  return digest;
}

}  // namespace

std::string step_directory(int64_t step) {
  return format("step-%06lld", static_cast<long long>(step));
}

std::string rank_file(int rank) { return format("rank-%05d.safetensors", rank); }

std::string digest_file(int rank) { return format("rank-%05d.digest.json", rank); }

std::optional<int64_t> step_of(const std::string& name, const std::string& suffix) {
  if (!name.starts_with("step-") || !name.ends_with(suffix)) return std::nullopt;
  int64_t step = 0;
  const char* end = name.data() + name.size() - suffix.size();
  const auto [stop, error] = std::from_chars(name.data() + 5, end, step);
  if (error != std::errc{} || stop != end || step < 0) return std::nullopt;
  return step;
}

void write_digest(const std::filesystem::path& path, const FileDigest& digest) {
  data::write_file_atomically(path, data::dump_json(to_json(digest)));
}

FileDigest read_digest(const std::filesystem::path& path) {
  return digest_from(data::read_json(path), path);
}

void write_manifest(const std::filesystem::path& directory, const Manifest& manifest) {
  data::Json files = data::Json::object();
  for (const auto& [name, digest] : manifest.files) files[name] = to_json(digest);
  data::write_file_atomically(directory / kManifestFile, data::dump_json({{"format", kFormat},
                                                                          {"version", kVersion},
                                                                          {"step", manifest.step},
                                                                          {"ranks", manifest.ranks},
                                                                          {"files", files}}));
}

Manifest read_manifest(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / kManifestFile;
  const auto fail = [&](const std::string& what) { throw UserError(path.string() + ": " + what); };
  if (!std::filesystem::exists(path)) {
    throw UserError(directory.string() + ": no manifest.json: not a complete checkpoint");
  }
  const data::Json json = data::read_json(path);
  Manifest manifest;
  try {
    if (json.at("format") != kFormat) fail("is not a checkpoint's manifest");
    if (json.at("version") != kVersion) fail("was written by another version of temper");
    manifest.step = json.at("step").get<int64_t>();
    manifest.ranks = json.at("ranks").get<int>();
    for (const auto& [name, digest] : json.at("files").items()) {
      if (name.find('/') != std::string::npos) fail("names a file elsewhere: " + name);
      manifest.files[name] = digest_from(digest, path);
    }
  } catch (const data::Json::exception&) {
    fail("is malformed");
  }
  if (const auto step = step_of(directory.filename().string()); step && *step != manifest.step) {
    fail("is of step " + std::to_string(manifest.step));
  }
  if (!manifest.files.contains(kStateFile)) fail("leaves out state.json");
  for (int rank = 0; rank < manifest.ranks; ++rank) {
    if (!manifest.files.contains(rank_file(rank))) fail("leaves out " + rank_file(rank));
  }
  return manifest;
}

}  // namespace temper::trainer
