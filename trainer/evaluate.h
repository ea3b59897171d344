#pragma once

#include "trainer/metrics/meter.h"
#include "trainer/run.h"

namespace temper::trainer {

/// The objective over [[data.eval]] in file order, shared among the ranks by micro-batch: eval_loss, eval_num_tokens and every
/// metric of the objective with the prefix eval_ (sums over all rows divided once, so ranks and cuts do not matter). Collective.
MetricLine evaluate(Run& run);

}  // namespace temper::trainer
