#include "data/hub/download.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <unistd.h>

#include "data/hub/transfer.h"
#include "data/io/atomic_file.h"
#include "data/io/claim.h"
#include "data/io/json.h"
#include "data/io/module.h"
#include "parallel/log.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

namespace fs = std::filesystem;

constexpr int kTries = 5;
constexpr auto kFirstPause = std::chrono::milliseconds(500);  // doubles
constexpr auto kPoll = std::chrono::milliseconds(200);

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

const HubModule& module() {
  using Entry = const HubModule*();
  static const auto entry = reinterpret_cast<Entry*>(
      module_entry("hub", "temper_hub_module", "libcurl and OpenSSL", "model.download"));
  const HubModule* found = entry();
  if (found == nullptr) throw RunError("model.download: libcurl does not start");
  return *found;
}

struct Hub {
  std::string endpoint;
  std::string token;
  std::string where;  // in front of every message: what is fetched from where
};

struct RemoteFile {
  std::string path;
  std::string digest;  // 64 letters: SHA-256 of the bytes; 40: as git names it
};

struct Listing {
  std::string commit;
  std::vector<RemoteFile> files;
};

// A branch or file name in an address.
std::string escaped(const std::string& text, bool keep_slashes) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string result;
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    const bool plain = byte < 128 && std::isalnum(byte) != 0;
    if (plain || std::string("-._~").find(letter) != std::string::npos ||
        (letter == '/' && keep_slashes)) {
      result += letter;
    } else {
      result += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return result;
}

// Weights of other frameworks and what only people read stay there.
bool is_needed(const std::string& path) {
  const fs::path file(path);
  const std::string folder = file.parent_path().string();
  if (!folder.empty() && folder != "additional_chat_templates") return false;
  if (file.filename().string().starts_with("consolidated")) return false;  // the same weights again
  const std::vector<std::string> suffixes = {".json", ".safetensors", ".model",
                                             ".txt",  ".jinja",       ".tiktoken"};
  return std::find(suffixes.begin(), suffixes.end(), file.extension()) != suffixes.end();
}

[[noreturn]] void refuse(const Hub& hub, const Transfer& transfer) {
  const std::string status = "the hub answers " + std::to_string(transfer.status);
  if (transfer.status == 404)
    throw UserError(hub.where + ": " + status + ": no such repository, revision or file");
  if (transfer.status == 401 || transfer.status == 403) {
    throw UserError(
        hub.where + ": " + status + ": it needs a token that may read it (HF_TOKEN" +
        (hub.token.empty() ? " is not set)" : "'s may not, or its terms are not accepted)"));
  }
  throw RunError(hub.where + ": " +
                 (transfer.error.empty()
                      ? status
                      : transfer.error + " (tried " + std::to_string(kTries) + " times)"));
}

// Again while the network, or the hub for a moment, fails.
template <typename Attempt>
void attempt(const Hub& hub, const Attempt& once) {
  auto pause = kFirstPause;
  for (int tries = 1;; ++tries) {
    const Transfer transfer = once();
    const bool ok = transfer.error.empty() && (transfer.status == 200 || transfer.status == 206);
    if (ok) return;
    const bool passes = transfer.status == 429 || transfer.status >= 500 || !transfer.error.empty();
    if (!passes || tries == kTries) refuse(hub, transfer);
    std::this_thread::sleep_for(pause);
    pause *= 2;
  }
}

Listing list_files(const Hub& hub, const HubName& name) {
  std::string text;
  attempt(hub, [&] {
    return module().fetch_text(hub.endpoint + "/api/models/" + name.repository + "/revision/" +
                                   escaped(name.revision, false) + "?blobs=true",
                               hub.token, text);
  });
  const Json answer = parse_json(text, hub.where);
  const auto text_of = [&](const Json& object, const char* key) {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_string())
      throw RunError(hub.where + ": the hub's list of files has no " + key);
    return found->get<std::string>();
  };
  Listing listing{.commit = text_of(answer, "sha"), .files = {}};
  const bool is_commit = listing.commit.size() == 40 &&
                         listing.commit.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!is_commit) throw RunError(hub.where + ": '" + listing.commit + "' is no commit");
  for (const Json& file : answer.value("siblings", Json::array())) {
    const std::string path = text_of(file, "rfilename");
    if (!is_needed(path)) continue;
    const auto large = file.find("lfs");
    const bool is_large = large != file.end() && large->is_object();
    listing.files.push_back({path, is_large ? text_of(*large, "sha256") : text_of(file, "blobId")});
    const std::string& digest = listing.files.back().digest;
    if (digest.find_first_not_of("0123456789abcdef") != std::string::npos ||
        (digest.size() != 64 && digest.size() != 40)) {
      throw RunError(hub.where + ": '" + digest + "' is no digest of " + path);
    }
  }
  if (listing.files.empty())
    throw UserError(hub.where + ": has no model files (config.json, safetensors)");
  return listing;
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// What was begun stays, under a name of its own, until it is whole.
void fetch_blob(const Hub& hub, const HubName& name, const Listing& listing, const RemoteFile& file,
                const fs::path& blob, const Claim& claim) {
  const fs::path partial = blob.string() + ".incomplete";
  const std::string url = hub.endpoint + "/" + name.repository + "/resolve/" + listing.commit +
                          "/" + escaped(file.path, true);
  const auto digest = [&] { return module().digest(partial.string(), file.digest.size() == 40); };
  // Cut off after its last byte, it is whole as it is, and nobody answers for what is behind its
  // end.
  if (!is_there(partial) || digest() != file.digest) {
    attempt(hub, [&] {
      Transfer transfer =
          module().fetch_file(url, hub.token, partial.string(), [&] { claim.refresh(); });
      if (transfer.status == 416) fs::remove(partial);
      return transfer;
    });
    if (!is_there(partial)) write_file_atomically(partial, "");  // an empty file is no bytes
    if (const std::string found = digest(); found != file.digest) {
      fs::remove(partial);
      throw RunError(hub.where + ": " + file.path + " has the digest " + found +
                     ", but the hub lists " + file.digest +
                     ": removed; run again to fetch it anew");
    }
  }
  fs::rename(partial, blob);
  sync_directory(blob.parent_path());
}

void bring_blob(const Hub& hub, const HubName& name, const Listing& listing, const RemoteFile& file,
                const fs::path& blob) {
  while (!is_there(blob)) {
    const std::optional<Claim> claim = Claim::take(blob.string() + ".lock");
    if (!claim) {
      std::this_thread::sleep_for(kPoll);
    } else if (!is_there(blob)) {
      fetch_blob(hub, name, listing, file, blob, *claim);
    }
  }
}

void link_to(const fs::path& blob, const fs::path& link) {
  fs::create_directories(link.parent_path());
  const fs::path target = fs::relative(blob, link.parent_path());
  std::error_code none;
  if (fs::read_symlink(link, none) == target) return;
  const fs::path temporary = link.string() + "." + std::to_string(::getpid());
  fs::remove(temporary);
  fs::create_symlink(target, temporary);
  fs::rename(temporary, link);
}

}  // namespace

fs::path download_snapshot(const HubName& name) {
  const std::string asked = "model.path = \"" + name.repository + "@" + name.revision + "\"";
  if (const std::string offline = environment("HF_HUB_OFFLINE");
      !offline.empty() && offline != "0") {
    if (const auto snapshot = cached_snapshot(name)) return *snapshot;
    throw UserError(asked + ": not in the hub's cache (" + hub_directory(name).string() +
                    "), and HF_HUB_OFFLINE forbids to fetch it");
  }
  Hub hub{.endpoint = environment("HF_ENDPOINT"), .token = environment("HF_TOKEN"), .where = {}};
  while (hub.endpoint.ends_with('/')) hub.endpoint.pop_back();
  if (hub.endpoint.empty()) {
    throw UserError("model.download: HF_ENDPOINT is not set: give the hub's address, https://...");
  }
  hub.where = asked + " from " + hub.endpoint;

  const Listing listing = list_files(hub, name);
  const fs::path directory = hub_directory(name);
  const fs::path snapshot = directory / "snapshots" / listing.commit;
  fs::create_directories(directory / "blobs");
  for (const RemoteFile& file : listing.files) {
    const fs::path blob = directory / "blobs" / file.digest;
    if (!is_there(blob)) parallel::say("fetching " + file.path + " of " + name.repository);
    bring_blob(hub, name, listing, file, blob);
    link_to(blob, snapshot / file.path);
  }
  if (name.revision != listing.commit) {
    const fs::path ref = directory / "refs" / name.revision;
    fs::create_directories(ref.parent_path());
    write_file_atomically(ref, listing.commit);
  }
  return snapshot;
}

}  // namespace temper::data
