#include "recipes/rendezvous.h"

#include <charconv>
#include <string_view>

namespace temper::recipes {

namespace {

constexpr std::string_view kTcp = "tcp://";
constexpr std::string_view kFile = "file://";

// The host of "host" or "[host]"; "" for neither.
std::string bare_host(std::string_view host) {
  const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (brackets) return std::string(host.substr(1, host.size() - 2));
  return host.find_first_of(":/[] ") == std::string_view::npos ? std::string(host) : "";
}

std::optional<Rendezvous> read_address(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) return {};
  const std::string_view digits = address.substr(colon + 1);
  Rendezvous result{.kind = Rendezvous::Kind::kTcp, .host = bare_host(address.substr(0, colon))};
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, result.port);
  const bool is_port =
      error == std::errc() && stop == end && result.port > 0 && result.port < 65536;
  if (!is_port || result.host.empty()) return {};
  return result;
}

}  // namespace

std::optional<Rendezvous> read_rendezvous(const std::string& text) {
  if (text == "mpi") return Rendezvous{};
  if (text.starts_with(kTcp)) return read_address(std::string_view(text).substr(kTcp.size()));
  if (!text.starts_with(kFile)) return {};
  const std::string file = text.substr(kFile.size());
  if (!file.starts_with('/') || file.ends_with('/')) return {};
  return Rendezvous{.kind = Rendezvous::Kind::kFile, .file = file};
}

}  // namespace temper::recipes
