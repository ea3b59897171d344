#pragma once

#include <cstdint>
#include <string>

#include "trainer/step.h"

namespace temper::parallel {
class CollectiveTimeout;
}

namespace temper::trainer {

struct Run;
struct RunDirectory;

/// A step that is not finite: every rank writes what it knows to failure/step-000123-rank-00001.json (loss, count, parameters
/// whose gradient or weight is not finite). Returns the one line that says which ranks' loss it was, or, where `overflows` is not 0,
/// that so many steps in a row have been too large for float16. Collective.
std::string dump_failure(Run& run, const RunDirectory& directory, int64_t step, const StepSums& sums, double grad_norm,
                         int64_t overflows = 0);

/// A collective that hangs: this rank writes its last ones to the same place. Returns the line that says so.
std::string dump_hang(const Run& run, const RunDirectory& directory, int64_t step, const parallel::CollectiveTimeout& hang);

}  // namespace temper::trainer
