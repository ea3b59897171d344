#pragma once

#include <optional>
#include <string>
#include <vector>

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/positional_options.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <boost/program_options/variables_map.hpp>

/// One way for all commands to read their arguments: names are written out (no abbreviations),
/// --help says what there is with an example, and whatever is wrong is a UserError of one line with
/// the nearest name.
///
///     ArgumentParser parser("temper tokenize MODEL [options]", "stdin to ids", "temper tokenize
///     models/llama < a.txt"); parser.positional("MODEL", "a model directory");
///     parser.options().add_options()("json", "one JSON string a line");
///     const auto given = parser.parse(arguments);
///     if (!given) return kDone;  // --help was answered
///     (*given)["MODEL"].as<std::string>()
namespace temper::launch {

namespace po = boost::program_options;

class ArgumentParser {
 public:
  ArgumentParser(std::string usage, std::string sentence, std::string example);

  po::options_description& options() { return visible_; }
  /// The next positional argument; it must be given. Read as std::string.
  void positional(const std::string& name, const std::string& sentence);
  /// Everything after the others, possibly nothing. Read as std::vector<std::string>.
  void rest(const std::string& name, const std::string& sentence);

  /// Unset when --help was asked for and has been printed. Throws UserError.
  std::optional<po::variables_map> parse(const std::vector<std::string>& arguments) const;

 private:
  void print_help() const;

  struct Positional {
    std::string name;
    std::string sentence;
    bool many;
  };
  std::string usage_, sentence_, example_;
  std::string command_;  // "temper tokenize", the start of every message
  po::options_description visible_;
  std::vector<Positional> positionals_;
};

/// The value of a string option, or unset when it was not given. Throws UserError when it is none
/// of `allowed`.
std::optional<std::string> one_of(const po::variables_map& given, const std::string& name,
                                  const std::vector<std::string>& allowed);

}  // namespace temper::launch
