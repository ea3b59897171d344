#pragma once

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

namespace temper {

/// "--name value" pairs over the defaults; another name ends the program with 2.
inline std::map<std::string, std::string> arguments_of(int count, char** arguments,
                                                       std::map<std::string, std::string> values) {
  for (int i = 1; i + 1 < count; i += 2) {
    if (!values.contains(arguments[i])) {
      std::fprintf(stderr, "unknown argument %s\n", arguments[i]);
      std::exit(2);
    }
    values[arguments[i]] = arguments[i + 1];
  }
  return values;
}

}  // namespace temper
