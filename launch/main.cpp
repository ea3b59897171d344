#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "launch/command.h"
#include "launch/startup.h"
#include "launch/version.h"
#include "recipes/diagnostic.h"

/// Finds the command, runs it, and turns what it throws into lines on standard error and an exit
/// code.
namespace temper::launch {
namespace {

void print_version() {
  const BuildInfo& build = build_info();
  const CudaSeen cuda = look_for_cuda();
  std::cout << "temper " << build.version << "\n"
            << "git revision " << build.git_revision << "\n"
            << "LibTorch " << build.libtorch << "\n"
            << "MPI " << mpi_library() << "\n"
            << "CUDA plugin " << (cuda.plugin.empty() ? "not built" : "built") << ", "
            << (cuda.driver.empty() ? "no driver" : "driver for CUDA " + cuda.driver) << "\n";
}

void print_help() {
  std::cout << "usage: temper COMMAND [arguments]\n\n"
               "Fine-tunes and trains language models from TOML recipes.\n\n";
  for (const Command& command : commands()) {
    const std::string name = command.name;
    std::cout << "  " << name << std::string(12 - name.size(), ' ') << command.sentence << "\n";
  }
  std::cout << "\n"
               "  temper COMMAND --help   options and an example\n"
               "  temper --version        versions of what this program is made of\n\n"
               "Exit codes: 0 done; 1 failed at run time; 2 the input is wrong; 75 stopped early, "
               "resumable.\n";
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    print_help();
    return kWrongInput;
  }
  const std::string& first = arguments.front();
  if (first == "--help" || first == "-h" || first == "help") {
    print_help();
    return kDone;
  }
  if (first == "--version") {
    print_version();
    return kDone;
  }
  std::vector<std::string> names = {"--help", "--version"};
  for (const Command& command : commands()) {
    if (first == command.name) return command.run({arguments.begin() + 1, arguments.end()});
    names.emplace_back(command.name);
  }
  const std::string nearest = nearest_name(first, names);
  throw UserError(
      "temper " + first + ": no such command; " +
      (nearest.empty() ? "temper --help lists them" : "did you mean temper " + nearest + "?"));
}

int guarded(const std::vector<std::string>& arguments) {
  try {
    const int code = run(arguments);
    std::cout.flush();
    // A full disk behind a pipe or redirection shows only here.
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0 || !std::cout) {
      throw RunError("standard output: cannot write");
    }
    return code;
  } catch (const UserError& error) {
    for (const std::string& line : error.lines()) std::cerr << line << "\n";
    return kWrongInput;
  } catch (const std::bad_alloc&) {
    std::cerr << "error: out of memory\n";
  } catch (const std::exception& error) {
    std::cerr << "error: " << without_frames(error.what()) << "\n";
  }
  return kFailed;
}

}  // namespace
}  // namespace temper::launch

int main(int argc, char** argv) { return temper::launch::guarded({argv + 1, argv + argc}); }
