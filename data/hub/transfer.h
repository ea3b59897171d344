#pragma once

#include <functional>
#include <string>

/// What needs libcurl and libcrypto, in a module that is loaded when something is to be fetched:
/// other runs need not wait for either.
namespace temper::data {

struct Transfer {
  long status = 0;    // of HTTP; 0: none
  std::string error;  // of the network; empty: the answer is complete
};

/// `url` into `text`, or, from what `file` holds on, into `file`, which other than successful
/// answers leave as it is. `token`, where not empty, goes to the first host alone, whatever
/// redirects. `alive` is called about once a second.
using FetchText = Transfer(const std::string& url, const std::string& token, std::string& text);
using FetchFile = Transfer(const std::string& url, const std::string& token,
                           const std::string& file, const std::function<void()>& alive);
/// Hexadecimal, of a file as git names it ("blob SIZE\0", SHA-1), or of its bytes alone (SHA-256).
using FileDigest = std::string(const std::string& file, bool as_git_blob);

struct HubModule {
  FetchText* fetch_text;
  FetchFile* fetch_file;
  FileDigest* digest;
};

}  // namespace temper::data
