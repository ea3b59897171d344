#include "launch/arguments.h"

#include <algorithm>
#include <iostream>
#include <utility>

#include <boost/program_options/parsers.hpp>

#include "recipes/diagnostic.h"

namespace temper::launch {

namespace {

constexpr int kStyle = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;

// "temper tokenize" of "temper tokenize MODEL [options]".
std::string first_two_words(const std::string& usage) {
  const size_t space = usage.find(' ');
  return usage.substr(0, usage.find(' ', space + 1));
}

std::vector<std::string> option_names(const po::options_description& options) {
  std::vector<std::string> names;
  for (const auto& option : options.options()) names.push_back("--" + option->long_name());
  names.emplace_back("--help");
  return names;
}

/// The one that `found` abbreviates, else the nearest; "" when none is near.
std::string likely_option(const std::string& found, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (name.starts_with(found)) return name;
  }
  return nearest_name(found, names);
}

}  // namespace

ArgumentParser::ArgumentParser(std::string usage, std::string sentence, std::string example)
    : usage_(std::move(usage)),
      sentence_(std::move(sentence)),
      example_(std::move(example)),
      command_(first_two_words(usage_)),
      visible_("Options", /*line_length=*/110) {}

void ArgumentParser::positional(const std::string& name, const std::string& sentence) {
  positionals_.push_back({name, sentence, /*many=*/false});
}

void ArgumentParser::rest(const std::string& name, const std::string& sentence) {
  positionals_.push_back({name, sentence, /*many=*/true});
}

std::optional<po::variables_map> ArgumentParser::parse(
    const std::vector<std::string>& arguments) const {
  po::options_description all;
  all.add(visible_);
  po::positional_options_description order;
  for (const Positional& p : positionals_) {
    if (p.many) {
      all.add_options()(p.name.c_str(),
                        po::value<std::vector<std::string>>()->default_value({}, ""));
    } else {
      all.add_options()(p.name.c_str(), po::value<std::string>());
    }
    order.add(p.name.c_str(), p.many ? -1 : 1);
  }
  all.add_options()("help,h", "");

  po::variables_map given;
  try {
    const auto parsed =
        po::command_line_parser(arguments).options(all).positional(order).style(kStyle).run();
    for (const auto& option : parsed.options) {
      if (option.string_key == "help") {
        print_help();
        return std::nullopt;
      }
    }
    po::store(parsed, given);
    po::notify(given);
  } catch (const po::unknown_option& error) {
    const std::string found = error.get_option_name();
    const std::string likely = likely_option(found, option_names(visible_));
    throw UserError(
        command_ + ": " + found + ": no such option; " +
        (likely.empty() ? command_ + " --help lists them" : "did you mean " + likely + "?"));
  } catch (const po::too_many_positional_options_error&) {
    throw UserError(command_ + ": too many arguments; usage: " + usage_);
  } catch (const po::error& error) {
    throw UserError(command_ + ": " + error.what());
  }
  for (const Positional& p : positionals_) {
    if (!p.many && given.count(p.name) == 0) {
      throw UserError(command_ + ": " + p.name + " is missing; usage: " + usage_);
    }
  }
  return given;
}

void ArgumentParser::print_help() const {
  size_t width = 0;
  for (const Positional& p : positionals_) width = std::max(width, p.name.size());
  std::cout << "usage: " << usage_ << "\n\n" << sentence_ << "\n\n";
  for (const Positional& p : positionals_) {
    std::cout << "  " << p.name << std::string(width - p.name.size() + 2, ' ') << p.sentence
              << "\n";
  }
  if (!positionals_.empty()) std::cout << "\n";
  if (!visible_.options().empty()) std::cout << visible_ << "\n";
  std::cout << "Example:\n  " << example_ << "\n";
}

std::optional<std::string> one_of(const po::variables_map& given, const std::string& name,
                                  const std::vector<std::string>& allowed) {
  if (given.count(name) == 0) return std::nullopt;
  const auto& found = given[name].as<std::string>();
  if (std::find(allowed.begin(), allowed.end(), found) == allowed.end()) {
    const std::string nearest = nearest_name(found, allowed);
    throw UserError("--" + name + " " + found + ": must be one of " + join(allowed, " | ") +
                    (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
  }
  return found;
}

}  // namespace temper::launch
