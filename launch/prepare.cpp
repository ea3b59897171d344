#include "launch/command.h"
#include "launch/recipe_arguments.h"
#include "launch/startup.h"
#include "parallel/log.h"
#include "trainer/run.h"

namespace temper::launch {

int prepare(const std::vector<std::string>& arguments) {
  ArgumentParser parser("temper prepare RECIPE [key=value ...]",
                        "Tokenizes the recipe's data into the cache of token shards, as `train` does on demand; ranks share the work",
                        "mpirun -n 2 temper prepare configs/quickstart.toml");
  add_recipe_arguments(parser);
  const auto given = parser.parse(arguments);
  if (!given) return kDone;

  return run_on_all_ranks([&](parallel::Session& session) {
    const recipes::Recipe recipe = read_recipe(*given, {.purpose = recipes::Purpose::kPrepare, .world_size = session.world().size});
    session.use_threads(static_cast<int>(recipe.train.threads.value_or(0)));
    check_every_host_sees(session, recipe.data.cache);
    const trainer::Datasets datasets = trainer::prepare_datasets(recipe, trainer::read_inputs(recipe), session.world());
    for (const std::string& line : datasets.statements) parallel::say(line);
    return int{kDone};
  }, peek_recipe(*given).parallel.rendezvous);
}

}  // namespace temper::launch
