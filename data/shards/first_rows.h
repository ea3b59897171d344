#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data/shards/prepare.h"
#include "data/shards/select.h"

namespace temper::data {

/// Checks the first 10,000 rows of every source, in order, before prepare() reads whole files: a
/// mistake in a data set of many gigabytes is told in seconds, also when it is in the last of many
/// sources. On every rank with the same outcome; nothing is written. Does nothing with on_bad_row =
/// skip, and leaves to prepare() what it does in seconds itself: what is in the cache, and data of
/// altogether at most 64 MiB. Rows beyond the first 64 MiB of a source's text are left to it too.
///
/// Throws UserError as prepare() does.
void check_first_rows(const std::vector<recipes::DataSource>& sources,
                      const EncoderFactory& factory, const PrepareOptions& options);

/// What a look at one of the first rows finds: the row, its tokens or why it is bad, and what of it
/// a data set takes (nothing of a row without a supervised token).
using LookedAt =
    std::function<void(const Row& row, const TokenizedRow& tokens, const std::string& wrong,
                       const std::vector<SelectedPiece>& pieces)>;

/// The rows of a source that check_first_rows() would check, with on_bad_row = skip; `report` as
/// prepare() gives it, of these rows. Throws UserError for a file that cannot be read.
void look_at_first_rows(const recipes::DataSource& source, const EncoderFactory& factory,
                        PrepareOptions options, const LookedAt& looked_at, PrepareReport& report);

}  // namespace temper::data
