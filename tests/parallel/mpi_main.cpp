#include "tests/parallel/mpi_main.h"

#include <cstdlib>
#include <optional>

#include <gtest/gtest.h>

namespace temper::parallel {

namespace {

std::optional<Session> session;
std::unique_ptr<Communicator> group;

/// Of the ranks above 0 only failures are of interest.
class FailurePrinter : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", session->world().rank, result.file_name(),
                 result.line_number(), result.message());
  }
};

}  // namespace

Session& test_session() { return *session; }
Communicator& test_group() { return *group; }

}  // namespace temper::parallel

int main(int argc, char** argv) {
  namespace parallel = temper::parallel;
  const char* const rendezvous = std::getenv("TEMPER_TEST_RENDEZVOUS");
  parallel::session = parallel::Session::start(rendezvous == nullptr ? "mpi" : rendezvous);
  parallel::session->use_threads(0);
  testing::InitGoogleTest(&argc, argv);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (parallel::session->world().rank > 0) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new parallel::FailurePrinter);
  }
  parallel::group = parallel::session->communicator(60);
  const int failed = RUN_ALL_TESTS();
  parallel::group.reset();
  const int code = parallel::session->agree_exit_code(failed);
  parallel::session->finish();
  return code;
}
