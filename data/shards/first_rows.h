#pragma once

#include <vector>

#include "data/shards/prepare.h"

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

}  // namespace temper::data
