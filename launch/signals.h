#pragma once

/// Stopping on request: TERM, USR1 and the first INT ask for a clean stop (end the step, write a
/// checkpoint, exit 75); a second INT ends the process at once with 130. Schedulers send USR1 or
/// TERM, a user at a terminal INT.
namespace temper::launch {

void install_signal_handlers();

/// The signal that asked this process to stop, or 0. Ranks may see it at different steps: they
/// agree on one.
int stop_signal();

}  // namespace temper::launch
