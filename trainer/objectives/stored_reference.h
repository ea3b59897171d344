#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "data/loader/loader.h"
#include "parallel/communicator.h"
#include "trainer/objectives/reference.h"

namespace temper::data {
class TokenDataset;
}

namespace temper::trainer {

/// objective.precompute_ref_log_probs: the reference's log-probabilities of a data set, computed once
/// and kept in a file.

/// Names the file of `dataset`'s log-probabilities under `live` in `directory`: by the weights, what
/// they are computed in, all rows, and `how` for whatever else they depend on.
std::filesystem::path stored_reference_file(const std::filesystem::path& directory, Reference& live,
                                            const data::TokenDataset& dataset,
                                            const data::RowLayout& layout, const std::string& how);

/// Log-probabilities read from `file`, a safetensors file that is complete or absent; where it is
/// absent, the ranks share `dataset`'s rows, `micro` at a time, and ask `live`, and rank 0 writes it.
/// Collective. Knows the rows of batches by their row_numbers; temperature 1 alone.
std::unique_ptr<Reference> stored_reference(const std::filesystem::path& file, Reference& live,
                                            const data::TokenDataset& dataset,
                                            const data::LoaderOptions& options,
                                            parallel::Communicator& communicator);

}  // namespace temper::trainer
