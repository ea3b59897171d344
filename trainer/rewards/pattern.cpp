#include "trainer/rewards/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

struct Match {
  int result;
  size_t begin = 0, end = 0;
};

Match match(const void* code, std::string_view text, size_t from, uint32_t options) {
  const auto* pattern = static_cast<const pcre2_code*>(code);
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(pattern, nullptr), &pcre2_match_data_free);
  const int result = pcre2_match(pattern, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                 from, options, data.get(), nullptr);
  if (result < 0) return {result};
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
  return {result, ends[0], ends[1]};
}

Pattern::Found found(const Match& match) {
  if (match.result >= 0) return Pattern::Found::kYes;
  return match.result == PCRE2_ERROR_NOMATCH ? Pattern::Found::kNo : Pattern::Found::kGaveUp;
}

}  // namespace

Pattern::Pattern(const std::string& expression, const std::string& where, Dot dot) {
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  const uint32_t options =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | (dot == Dot::kAll ? PCRE2_DOTALL : 0u);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()),
                                   expression.size(), options, &error, &offset, context.get());
  if (code == nullptr) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof message);
    throw UserError(where + ": regular expression '" + expression + "', character " +
                    std::to_string(offset) + ": " + reinterpret_cast<const char*>(message));
  }
  code_ = std::shared_ptr<const void>(code, [](const void* owned) {
    pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(owned)));
  });
}

Pattern::Found Pattern::somewhere_in(std::string_view text) const {
  return found(match(code_.get(), text, 0, 0));
}

Pattern::Found Pattern::whole(std::string_view text) const {
  return found(match(code_.get(), text, 0, PCRE2_ANCHORED | PCRE2_ENDANCHORED));
}

std::string_view Pattern::first_in(std::string_view text) const {
  const Match first = match(code_.get(), text, 0, PCRE2_NOTEMPTY);
  return first.result < 0 ? std::string_view{} : text.substr(first.begin, first.end - first.begin);
}

std::string_view Pattern::last_in(std::string_view text) const {
  std::string_view last;
  for (size_t from = 0; from <= text.size();) {
    const Match next = match(code_.get(), text, from, PCRE2_NOTEMPTY);
    if (next.result < 0) break;
    last = text.substr(next.begin, next.end - next.begin);
    from = next.end;
  }
  return last;
}

}  // namespace temper::trainer
