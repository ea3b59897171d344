#include "launch/arguments.h"

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::launch {
namespace {

ArgumentParser example_parser() {
  ArgumentParser parser("temper try MODEL [options]", "A sentence.", "temper try models/x");
  parser.positional("MODEL", "a model directory");
  parser.options().add_options()("max-length", po::value<int64_t>(), "tokens")("json", "as JSON");
  return parser;
}

std::string refusal(const std::vector<std::string>& arguments) {
  try {
    example_parser().parse(arguments);
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Arguments, PositionalsAndOptionsMayBeMixed) {
  const auto given = example_parser().parse({"--max-length", "7", "models/x", "--json"});
  ASSERT_TRUE(given);
  EXPECT_EQ((*given)["MODEL"].as<std::string>(), "models/x");
  EXPECT_EQ((*given)["max-length"].as<int64_t>(), 7);
  EXPECT_EQ(given->count("json"), 1U);
}

TEST(Arguments, AMisspeltOptionNamesItsNeighbour) {
  EXPECT_EQ(refusal({"x", "--max-lenght", "7"}),
            "temper try: --max-lenght: no such option; did you mean --max-length?");
}

TEST(Arguments, AnAbbreviationIsNotAccepted) {
  EXPECT_EQ(refusal({"x", "--js"}), "temper try: --js: no such option; did you mean --json?");
}

TEST(Arguments, AMissingPositionalIsNamed) {
  EXPECT_EQ(refusal({"--json"}), "temper try: MODEL is missing; usage: temper try MODEL [options]");
}

TEST(Arguments, OnePositionalTooManyIsRefused) {
  EXPECT_EQ(refusal({"x", "y"}),
            "temper try: too many arguments; usage: temper try MODEL [options]");
}

TEST(Arguments, AValueOfTheWrongTypeIsRefused) {
  EXPECT_EQ(refusal({"x", "--max-length", "seven"}),
            "temper try: the argument ('seven') for option '--max-length' is invalid");
}

TEST(Arguments, TheRestMayBeEmptyOrLong) {
  const auto parse = [](const std::vector<std::string>& arguments) {
    ArgumentParser parser("temper try RECIPE [key=value ...]", "A sentence.", "temper try a.toml");
    parser.positional("RECIPE", "a recipe");
    parser.rest("key=value", "overrides");
    return (*parser.parse(arguments))["key=value"].as<std::vector<std::string>>();
  };
  EXPECT_TRUE(parse({"a.toml"}).empty());
  EXPECT_EQ(parse({"a.toml", "x=1", "y=-2"}), (std::vector<std::string>{"x=1", "y=-2"}));
}

TEST(Arguments, HelpPrintsUsageOptionsAndExampleAndWinsOverMissingArguments) {
  testing::internal::CaptureStdout();
  EXPECT_FALSE(example_parser().parse({"--help"}));
  const std::string text = testing::internal::GetCapturedStdout();
  for (const char* part : {"usage: temper try MODEL [options]", "a model directory", "--max-length",
                           "temper try models/x"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
}

TEST(OneOf, RefusesWhatIsNotInTheListWithTheNearest) {
  ArgumentParser parser("temper try [options]", "A sentence.", "temper try");
  parser.options().add_options()("dtype", po::value<std::string>(), "type");
  const auto given = parser.parse({"--dtype", "fp33"});
  try {
    one_of(*given, "dtype", {"fp32", "bf16"});
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(), "--dtype fp33: must be one of fp32 | bf16; did you mean fp32?");
  }
}

}  // namespace
}  // namespace temper::launch
