#pragma once

#include <optional>
#include <string>
#include <string_view>

/// Base64 (RFC 4648, section 4).
namespace temper::data {

std::string encode_base64(std::string_view bytes);
/// Unset for what is not base64.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace temper::data
