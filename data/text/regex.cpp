#include "data/text/regex.h"

#include <algorithm>
#include <iterator>
#include <optional>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "data/text/unicode.h"
#include "data/text/unicode_tables.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

// Oniguruma's \w, which PCRE2 10.42 reads as letters, numbers and underscore.
constexpr std::string_view kWord = "\\p{L}\\p{M}\\p{Nd}\\p{Pc}";

std::string translate(const std::string& pattern, const std::string& where) {
  std::string result;
  int class_depth = 0;
  const auto refuse = [&](const std::string& construct) {
    throw UserError(where + ": regular expression '" + pattern + "' uses " + construct +
                    ", which is not supported");
  };
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 'w') {
        result.append(class_depth > 0 ? std::string(kWord) : "[" + std::string(kWord) + "]");
      } else if (escaped == 'W' && class_depth == 0) {
        result.append("[^" + std::string(kWord) + "]");
      } else if (std::string_view("WbBhHRXGKkgyY").find(escaped) != std::string_view::npos) {
        refuse("\\" + std::string(1, escaped));
      } else {
        result.append({c, escaped});
      }
      continue;
    }
    if (class_depth > 0 && pattern.compare(i, 2, "&&") == 0) refuse("the class intersection &&");
    if (c == '[') {
      if (class_depth > 0) refuse("a class inside a class");
      ++class_depth;
      result.push_back(c);
      // A bracket that comes first is a member of the class.
      if (pattern.compare(i + 1, 1, "^") == 0) result.push_back(pattern[++i]);
      if (pattern.compare(i + 1, 1, "]") == 0) {
        result.append("\\]");
        ++i;
      }
      continue;
    }
    if (c == ']' && class_depth > 0) --class_depth;
    result.push_back(c);
  }
  return result;
}

bool names_newer_characters(std::string_view pattern) {
  for (size_t at = 0; at < pattern.size();) {
    const CodePoint c = decode_utf8(pattern, at);
    at += c.size;
    for (const StandIn& entry : regex_stand_ins()) {
      if (c.value >= entry.first && c.value <= entry.last) return true;
    }
  }
  return false;
}

// The text as PCRE2 shall see it, or nothing when that is the text itself.
std::optional<std::string> shadow(std::string_view text) {
  const std::span<const StandIn> entries = regex_stand_ins();
  const uint32_t lowest = entries.front().first;
  std::optional<std::string> copy;
  for (size_t at = 0; at < text.size();) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const CodePoint c = decode_utf8(text, at);
    if (c.value >= lowest) {
      const auto after = std::upper_bound(
          entries.begin(), entries.end(), c.value,
          [](uint32_t value, const StandIn& entry) { return value < entry.first; });
      if (after != entries.begin() && c.value <= std::prev(after)->last) {
        if (!copy) copy.emplace(text);
        std::string stand_in;
        append_utf8(stand_in, std::prev(after)->stand_in);
        copy->replace(at, c.size, stand_in);
      }
    }
    at += c.size;
  }
  return copy;
}

struct MatchMemory {
  pcre2_match_data* data = pcre2_match_data_create(64, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, 16 * 1024 * 1024, nullptr);
  MatchMemory() { pcre2_jit_stack_assign(context, nullptr, stack); }
  ~MatchMemory() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  MatchMemory(const MatchMemory&) = delete;
  MatchMemory& operator=(const MatchMemory&) = delete;
};

}  // namespace

Regex::Regex(const std::string& pattern, const std::string& where) {
  if (names_newer_characters(pattern)) {
    throw UserError(where + ": regular expression '" + pattern +
                    "' names characters newer than Unicode 14, which is not supported");
  }
  const std::string translated = translate(pattern, where);
  // Oniguruma's ^ and $ stand at line ends; its dot excludes only the line feed.
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code == nullptr) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof message);
    throw UserError(where + ": regular expression '" + pattern +
                    "': " + reinterpret_cast<const char*>(message));
  }
  code_ = std::shared_ptr<const void>(code, [](const void* owned) {
    pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(owned)));
  });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // Without JIT the same matches come slower.
}

void Regex::find_all(std::string_view text, std::vector<Span>& matches) const {
  matches.clear();
  thread_local MatchMemory memory;
  const std::optional<std::string> copy = shadow(text);
  const std::string_view subject = copy ? std::string_view(*copy) : text;
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(memory.data);
  for (size_t from = 0; from <= subject.size();) {
    const int found =
        pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), from,
                    PCRE2_NO_UTF_CHECK, memory.data, memory.context);
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0) {
      throw RunError("regular expression of the tokenizer: PCRE2 error " + std::to_string(found) +
                     " on a text of " + std::to_string(text.size()) + " bytes");
    }
    const size_t begin = ends[0];
    const size_t end = ends[1];
    if (begin == end && !matches.empty() && matches.back().end == end) {
      if (from >= subject.size()) return;
      from = end + (end < subject.size() ? utf8_size(subject[end]) : 1);
      continue;
    }
    matches.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    from = end;
  }
}

}  // namespace temper::data
