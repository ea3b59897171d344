#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <curl/curl.h>
#include <openssl/evp.h>

#include "data/hub/transfer.h"

namespace temper::data {

namespace {

constexpr long kConnectSeconds = 30;
constexpr long kStalledSeconds = 60;  // without a byte
constexpr long kRedirects = 5;

using Sink = std::function<bool(std::string_view bytes, long status)>;

struct Request {
  CURL* curl;
  const Sink& sink;
};

size_t receive(char* bytes, size_t size, size_t count, void* context) {
  const auto& request = *static_cast<Request*>(context);
  long status = 0;
  curl_easy_getinfo(request.curl, CURLINFO_RESPONSE_CODE, &status);
  return request.sink({bytes, size * count}, status) ? size * count : CURL_WRITEFUNC_ERROR;
}

int still_alive(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  (*static_cast<const std::function<void()>*>(context))();
  return 0;
}

Transfer perform(const std::string& url, const std::string& token, int64_t from, const Sink& sink,
                 const std::function<void()>& alive) {
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 curl_easy_cleanup);
  if (!curl) return {.error = "libcurl does not start"};
  char reason[CURL_ERROR_SIZE] = "";
  Request request{curl.get(), sink};
  const auto set = [&](CURLoption option, auto value) {
    curl_easy_setopt(curl.get(), option, value);
  };
  // Never from a secure address to one that is not.
  const char* protocols = url.starts_with("https:") ? "https" : "http,https";
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_PROTOCOLS_STR, protocols);
  set(CURLOPT_REDIR_PROTOCOLS_STR, protocols);
  set(CURLOPT_FOLLOWLOCATION, 1L);
  set(CURLOPT_MAXREDIRS, kRedirects);
  set(CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  set(CURLOPT_LOW_SPEED_TIME, kStalledSeconds);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_USERAGENT, "temper");
  set(CURLOPT_ERRORBUFFER, reason);
  // Not libcurl's own way to resume, which fails where a server sends all of it again.
  const std::string range = std::to_string(from) + "-";
  if (from > 0) set(CURLOPT_RANGE, range.c_str());
  set(CURLOPT_WRITEFUNCTION, &receive);
  set(CURLOPT_WRITEDATA, &request);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &still_alive);
  set(CURLOPT_XFERINFODATA, &alive);
  if (!token.empty()) {
    set(CURLOPT_HTTPAUTH, CURLAUTH_BEARER);  // libcurl keeps it from other hosts
    set(CURLOPT_XOAUTH2_BEARER, token.c_str());
  }
  const CURLcode code = curl_easy_perform(curl.get());
  Transfer transfer;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &transfer.status);
  if (code != CURLE_OK) transfer.error = *reason != '\0' ? reason : curl_easy_strerror(code);
  return transfer;
}

Transfer fetch_text(const std::string& url, const std::string& token, std::string& text) {
  text.clear();
  const auto sink = [&](std::string_view bytes, long) {
    text.append(bytes);
    return true;
  };
  return perform(url, token, 0, sink, [] {});
}

Transfer fetch_file(const std::string& url, const std::string& token, const std::string& path,
                    const std::function<void()>& alive) {
  std::error_code none;
  const auto size = std::filesystem::file_size(path, none);
  const auto from = static_cast<int64_t>(none ? 0 : size);
  std::ofstream file;
  std::string reason;
  const auto sink = [&](std::string_view bytes, long status) {
    if (status != 200 && status != 206) return true;  // an explanation, not the file
    if (!file.is_open()) {
      // A server that does not know ranges sends all of it.
      file.open(path, std::ios::binary | (status == 206 ? std::ios::app : std::ios::trunc));
    }
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!file) reason = "cannot write " + path;
    return file.good();
  };
  Transfer transfer = perform(url, token, from, sink, alive);
  file.close();
  if (!reason.empty()) transfer.error = reason;
  return transfer;
}

std::string digest(const std::string& path, bool as_git_blob) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), as_git_blob ? EVP_sha1() : EVP_sha256(), nullptr);
  if (as_git_blob) {
    const std::string header = "blob " + std::to_string(std::filesystem::file_size(path));
    EVP_DigestUpdate(context.get(), header.c_str(), header.size() + 1);
  }
  std::ifstream file(path, std::ios::binary);
  std::vector<char> block(1 << 20);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())) || file.gcount() > 0) {
    EVP_DigestUpdate(context.get(), block.data(), static_cast<size_t>(file.gcount()));
  }
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  EVP_DigestFinal_ex(context.get(), bytes, &length);
  std::string text;
  for (unsigned int i = 0; i < length; ++i) {
    char pair[3];
    std::snprintf(pair, sizeof(pair), "%02x", bytes[i]);
    text += pair;
  }
  return text;
}

}  // namespace

}  // namespace temper::data

/// The module's only entry.
extern "C" const temper::data::HubModule* temper_hub_module() {
  static const temper::data::HubModule module{temper::data::fetch_text, temper::data::fetch_file,
                                              temper::data::digest};
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  return ready == CURLE_OK ? &module : nullptr;
}
