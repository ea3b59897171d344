#include "data/shards/input_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include <sys/stat.h>

#include <xxhash.h>

#include "data/io/atomic_file.h"

namespace temper::data {

namespace {

std::string hexadecimal(XXH128_hash_t hash) {
  std::array<char, 33> text{};
  std::snprintf(text.data(), text.size(), "%016llx%016llx",
                static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text.data();
}

struct Cut {
  int64_t begin;       // of a chunk, in bytes
  int64_t first_line;  // its number
};

struct Contents {
  std::string hash;
  std::vector<Cut> cuts;
};

// Hashes and, for the line numbers of messages, counts lines in the same pass.
Contents read_contents(const std::filesystem::path& file, bool cut_at_lines, int64_t chunk_bytes) {
  std::FILE* stream = std::fopen(file.c_str(), "rb");
  if (stream == nullptr) throw UserError(file.string() + ": cannot read: " + std::strerror(errno));
  XXH3_state_t* state = XXH3_createState();
  XXH3_128bits_reset(state);
  Contents contents{.hash = "", .cuts = {{0, 1}}};
  std::vector<char> buffer(4 << 20);
  int64_t position = 0, lines = 0, boundary = chunk_bytes;
  while (const size_t got = std::fread(buffer.data(), 1, buffer.size(), stream)) {
    XXH3_128bits_update(state, buffer.data(), got);
    const char* const end = buffer.data() + got;
    for (const char* at = buffer.data(); cut_at_lines && at < end; ++at) {
      at = static_cast<const char*>(std::memchr(at, '\n', static_cast<size_t>(end - at)));
      if (at == nullptr) break;
      ++lines;
      const int64_t line_start = position + (at + 1 - buffer.data());
      if (line_start < boundary) continue;
      contents.cuts.push_back({line_start, lines + 1});
      boundary = (line_start / chunk_bytes + 1) * chunk_bytes;
    }
    position += static_cast<int64_t>(got);
  }
  const bool failed = std::ferror(stream) != 0;
  const std::string reason = std::strerror(errno);
  std::fclose(stream);
  contents.hash = hexadecimal(XXH3_128bits_digest(state));
  XXH3_freeState(state);
  if (failed) throw UserError(file.string() + ": cannot read: " + reason);
  if (contents.cuts.back().begin >= position && contents.cuts.size() > 1) contents.cuts.pop_back();
  return contents;
}

std::filesystem::path memo_path(const std::filesystem::path& file,
                                const std::filesystem::path& cache, int64_t chunk_bytes) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) {
    throw UserError(file.string() + ": cannot read: " + std::strerror(errno));
  }
  const std::string identity =
      std::filesystem::absolute(file).string() + "\n" + std::to_string(status.st_size) + " " +
      std::to_string(status.st_mtim.tv_sec) + " " + std::to_string(status.st_mtim.tv_nsec) + " " +
      std::to_string(status.st_ino) + " " + std::to_string(chunk_bytes);
  return cache / "files" / (hash_of(identity) + ".json");
}

// What is unreadable here is simply read anew from the file itself.
std::optional<Contents> recall(const std::filesystem::path& memo) {
  try {
    const Json known = read_json(memo);
    Contents contents{.hash = known.at("hash").get<std::string>(), .cuts = {}};
    for (const Json& cut : known.at("cuts")) {
      contents.cuts.push_back({cut.at(0).get<int64_t>(), cut.at(1).get<int64_t>()});
    }
    if (!contents.cuts.empty()) return contents;
  } catch (const UserError&) {
  } catch (const Json::exception&) {
  }
  return std::nullopt;
}

InputFile in_chunks(const std::filesystem::path& file, const Contents& contents,
                    int64_t chunk_bytes) {
  InputFile input{.path = file, .hash = contents.hash, .chunk_bytes = chunk_bytes, .chunks = {}};
  for (size_t i = 0; i < contents.cuts.size(); ++i) {
    ReaderOptions chunk{.range = {.begin = contents.cuts[i].begin},
                        .first_line = contents.cuts[i].first_line};
    if (i + 1 < contents.cuts.size()) chunk.range.end = contents.cuts[i + 1].begin;
    input.chunks.push_back(chunk);
  }
  return input;
}

}  // namespace

std::string hash_of(std::string_view text) {
  return hexadecimal(XXH3_128bits(text.data(), text.size()));
}

InputFile inspect_file(const std::filesystem::path& file, const std::filesystem::path& cache,
                       int64_t chunk_bytes) {
  const std::filesystem::path memo = memo_path(file, cache, chunk_bytes);
  if (const auto known = recall(memo)) return in_chunks(file, *known, chunk_bytes);
  const Contents contents = read_contents(file, is_cut_at_lines(file), chunk_bytes);
  Json cuts = Json::array();
  for (const auto& [begin, first_line] : contents.cuts) cuts.push_back({begin, first_line});
  std::filesystem::create_directories(memo.parent_path());
  write_file_atomically(
      memo, dump_json({{"file", file.string()}, {"hash", contents.hash}, {"cuts", cuts}}),
      Durable::kNo);
  return in_chunks(file, contents, chunk_bytes);
}

std::optional<InputFile> remembered_file(const std::filesystem::path& file,
                                         const std::filesystem::path& cache, int64_t chunk_bytes) {
  const auto known = recall(memo_path(file, cache, chunk_bytes));
  if (!known) return std::nullopt;
  return in_chunks(file, *known, chunk_bytes);
}

}  // namespace temper::data
