#pragma once

namespace temper::parallel {

class Communicator;

/// Seconds that this rank's clock `now` is ahead of rank 0's, exact to half the quickest of several
/// round trips (Cristian 1989, doi:10.1007/BF01784024). Collective; ranks are asked one after the
/// other.
double clock_offset(Communicator& communicator, double (*now)());

/// Seconds of the clock that only goes forward, and of the one that tells the time.
double steady_seconds();
double system_seconds();

}  // namespace temper::parallel
