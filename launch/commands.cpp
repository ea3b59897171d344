#include "launch/command.h"

namespace temper::launch {

const std::vector<Command>& commands() {
  static const std::vector<Command> table = {
      {"train", "runs a recipe: trains, checkpoints, exports; resumes by itself", train},
      {"plan", "checks a recipe; prints memory, disk, rows and steps", plan},
      {"prepare", "tokenizes a recipe's data into the cache of token shards", prepare},
      {"eval", "evaluates on [[data.eval]]; the last line is one JSON object", eval},
      {"generate", "text from a model, run or checkpoint directory, streamed", generate},
      {"tokenize", "stdin to token ids, one JSON array a line, or back", tokenize},
      {"export", "a checkpoint, run or model to a directory that transformers loads",
       export_command},
      {"inspect", "what is in a file, run or checkpoint; a recipe's rows with what is trained on",
       inspect},
      {"init", "writes a commented recipe that runs as it is", init},
      {"doctor", "versions, devices, measured rates; what is missing and how to mend it", doctor},
  };
  return table;
}

}  // namespace temper::launch
