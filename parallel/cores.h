#pragma once

#include <string>
#include <string_view>
#include <vector>

/// Which cores a rank computes on. mpirun binds a rank to one core and Slurm may bind or not, so
/// the set comes from what the host allows, not from the inherited mask alone; see allowed_cores().
namespace temper::parallel {

/// "0-1,3" -> {0, 1, 3}, sorted, without doubles. Throws UserError whose line begins with `where`.
std::vector<int> parse_core_list(std::string_view text, const std::string& where);

/// {0, 1, 3} -> "0-1,3".
std::string format_core_list(const std::vector<int>& cores);

/// The cores that this process may use: TEMPER_CORES where it is set; under mpirun what mpirun
/// itself was allowed (or, where it cannot be seen, what the cgroup allows), since it has bound us
/// to one core; else the inherited mask.
std::vector<int> allowed_cores(bool under_mpirun);

/// Threads that cores without a CPU quota could not use: the cgroup's quota in whole cores, or 0
/// where there is none.
int cpu_quota();

/// The cores of the `local_rank`-th of the ranks on a host, given what each of them is allowed.
/// Equal sets are shared out (neighbours, no core twice while there are enough); different sets
/// were bound on purpose and are kept.
std::vector<int> cores_of_rank(const std::vector<std::vector<int>>& allowed, int local_rank);

/// Moves the calling thread, and those it starts later, to `cores`. False where the system refuses.
bool bind_to_cores(const std::vector<int>& cores);

}  // namespace temper::parallel
