#pragma once

#include <memory>

#include "trainer/objectives/reference.h"

/// The reference that [objective] asks for.
namespace temper::trainer {

struct Run;

/// objective.teacher, or objective.ref_model, where it is given; else the start weights: of adapters in the policy's own
/// model, of full fine-tuning in a frozen copy. Where log-probabilities are computed once the copy is
/// left out, since the policy itself is still at its start then. To be called before any update.
/// Throws UserError.
std::unique_ptr<Reference> make_reference(Run& run);

/// Log-probabilities of all rows (objective.precompute_ref_log_probs) in place of run.reference, read
/// from the cache or computed now. Needs the communicator; collective.
void store_references(Run& run);

}  // namespace temper::trainer
