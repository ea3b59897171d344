#include "launch/arguments.h"
#include "launch/command.h"
#include "launch/startup.h"
#include "parallel/log.h"
#include "trainer/run.h"

namespace temper::launch {

int prepare(const std::vector<std::string>& arguments) {
  const RecipeArguments given = parse_recipe_arguments(
      arguments, {.command = "prepare",
                  .sentence = "Tokenizes the recipe's data into the cache of token shards; ranks share the work. `train` does the same on demand.",
                  .example = "mpirun -n 2 temper prepare configs/quickstart.toml"});
  if (given.help) return kDone;

  parallel::Session session = start_session();
  return together(session, [&](Phases& phase) {
    trainer::Datasets datasets;
    phase([&] {
      const recipes::Recipe recipe = read_recipe(given, {.world_size = session.world().size, .trains = false});
      session.use_threads(static_cast<int>(recipe.train.threads.value_or(0)));
      datasets = trainer::prepare_datasets(recipe, trainer::read_inputs(recipe), session.world());
    });
    for (const std::string& line : datasets.statements) parallel::say(line);
    return int{kDone};
  });
}

}  // namespace temper::launch
