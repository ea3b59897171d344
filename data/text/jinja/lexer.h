#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

/// Template source to tokens: Jinja2 3.1's rules with trim_blocks and lstrip_blocks on, `-` and `+`
/// marks, raw blocks, comments, CRLF read as LF and one newline at the end of the source dropped.
namespace temper::data::jinja {

/// A template that does not parse.
class SyntaxError : public std::runtime_error {
 public:
  SyntaxError(const std::string& what, int at_line, int at_column)
      : std::runtime_error(what), line(at_line), column(at_column) {}
  int line, column;  // from 1
};

struct Token {
  enum class Kind {
    kText,
    kOutputBegin,
    kOutputEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  std::string text;  // of a string: unescaped; of a number: as written, without underscores
  int line = 1, column = 1;
};

/// Ends with a kEnd token. Throws SyntaxError.
std::vector<Token> tokenize(std::string_view source);

}  // namespace temper::data::jinja
