#include "launch/command.h"

namespace temper::launch {

const std::vector<Command>& commands() {
  static const std::vector<Command> table = {
      {"tokenize", "stdin to token ids, one JSON array a line, or back", tokenize},
  };
  return table;
}

}  // namespace temper::launch
