#include "recipes/name_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "recipes/diagnostic.h"

namespace temper::recipes {

namespace {

using MatchData = std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)>;

MatchData match(const void* code, const std::string& name, uint32_t options) {
  const auto* pattern = static_cast<const pcre2_code*>(code);
  MatchData data(pcre2_match_data_create_from_pattern(pattern, nullptr), &pcre2_match_data_free);
  const int found = pcre2_match(pattern, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0,
                                options | PCRE2_ANCHORED, data.get(), nullptr);
  if (found < 0) data.reset();
  return data;
}

std::shared_ptr<const void> compile(const std::string& pattern, std::string& problem) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof message);
    problem = std::string(reinterpret_cast<const char*>(message)) + " at character " +
              std::to_string(offset);
    return nullptr;
  }
  return {code, [](const void* owned) {
            pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(owned)));
          }};
}

}  // namespace

std::string NamePattern::problem(const std::string& pattern) {
  std::string problem;
  compile(pattern, problem);
  return problem;
}

NamePattern::NamePattern(const std::string& pattern, const std::string& where) {
  std::string problem;
  code_ = compile(pattern, problem);
  if (code_ == nullptr)
    throw UserError(where + ": regular expression '" + pattern + "': " + problem);
}

bool NamePattern::matches(const std::string& name) const {
  return match(code_.get(), name, PCRE2_ENDANCHORED) != nullptr;
}

std::optional<std::string> NamePattern::idx(const std::string& name) const {
  const MatchData data = match(code_.get(), name, 0);
  if (data == nullptr) return std::nullopt;
  const auto* pattern = static_cast<const pcre2_code*>(code_.get());
  const int group = pcre2_substring_number_from_name(pattern, reinterpret_cast<PCRE2_SPTR>("idx"));
  TEMPER_CHECK(group > 0, "a pattern without (?P<idx>...)");
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
  return name.substr(ends[2 * group], ends[2 * group + 1] - ends[2 * group]);
}

}  // namespace temper::recipes
