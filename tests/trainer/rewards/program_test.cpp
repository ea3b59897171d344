#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "parallel/log.h"
#include "recipes/diagnostic.h"
#include "tests/trainer/checkpoint/scratch.h"
#include "tests/trainer/rewards/scoring.h"

namespace temper::trainer {
namespace {

// What a worker's loop does with $line, in sh.
std::string loop(const std::string& body) {
  return "while IFS= read -r line; do " + body + "; done";
}

std::unique_ptr<Reward> program(const std::string& command, double timeout = 20,
                                int64_t workers = 1) {
  recipes::Reward recipe = reward_of("program");
  recipe.name = "judge";
  recipe.command = command;
  recipe.timeout = timeout;
  recipe.workers = workers;
  return build_reward(recipe, 16);
}

void submit(Reward& reward, const std::string& completion) {
  Completed completed;
  completed.prompt = "p";
  completed.completion = completion;
  completed.columns = data::Json::object();
  reward.submit(completed);
}

std::vector<double> scores(Reward& reward, const std::vector<std::string>& completions) {
  for (const std::string& completion : completions) submit(reward, completion);
  return reward.collect();
}

bool is_there(pid_t id) { return ::kill(id, 0) == 0; }

bool goes_away(pid_t id) {
  for (int i = 0; i < 500 && is_there(id); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return !is_there(id);
}

pid_t written_id(const std::filesystem::path& path) {
  for (int i = 0; i < 500; ++i) {
    const std::string text = read_all(path);
    if (text.ends_with('\n')) return std::stoi(text);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return 0;
}

size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

bool has_children() { return ::waitpid(-1, nullptr, WNOHANG) != -1 || errno != ECHILD; }

std::string failure(Reward& reward) {
  try {
    reward.collect();
  } catch (const RunError& error) {
    return error.what();
  }
  return "";
}

/// What the log got while this lives.
class Logged {
 public:
  Logged() {
    parallel::set_log_sink([this](const std::string& line) { text_ += line + "\n"; });
  }
  ~Logged() { parallel::set_log_sink({}); }
  Logged(const Logged&) = delete;
  Logged& operator=(const Logged&) = delete;
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

TEST(ProgramReward, GetsPromptCompletionAndColumnsAndAnswersInOrder) {
  const Scratch scratch;
  write_all(scratch / "score.py",
            "import json, sys\n"
            "for line in sys.stdin:\n"
            "    row = json.loads(line)\n"
            "    assert list(row) == ['prompt', 'completion', 'answer', 'level'], row\n"
            "    assert row['prompt'] == 'p\\n\"q\"', row\n"
            "    print(row['level'] * 10 + len(row['completion']) + (row['answer'] == 'é'))\n");
  recipes::Reward recipe = reward_of("program");
  recipe.command = std::vector<std::string>{"python3", (scratch / "score.py").string()};
  recipe.workers = 3;
  const auto reward = build_reward(recipe, 16);
  for (int batch = 0; batch < 2; ++batch) {
    for (int i = 0; i < 20; ++i) {
      Completed completed;
      completed.prompt = "p\n\"q\"";
      completed.completion = std::string(i % 7, 'c');
      completed.columns = {{"answer", i % 2 ? "é" : "e"}, {"level", i}, {"prompt", "hidden"}};
      reward->submit(completed);
    }
    const auto results = reward->collect();
    ASSERT_EQ(results.size(), 20u);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(results[i], i * 10 + i % 7 + i % 2) << i;
  }
  EXPECT_EQ(reward->errors(), 0);
  EXPECT_TRUE(reward->collect().empty());
}

TEST(ProgramReward, AnswersAreNumbersOrObjectsWithAReward) {
  const auto answer = [](const std::string& text) {
    return scores(*program(loop("echo '" + text + "'")), {"c"}).at(0);
  };
  EXPECT_EQ(answer("0.25"), 0.25);
  EXPECT_EQ(answer("  -1e2 "), -100.0);
  EXPECT_EQ(answer("+3"), 3.0);
  EXPECT_EQ(answer("{\"reward\": 0.5, \"why\": \"so\"}"), 0.5);
}

TEST(ProgramReward, WhatIsNoNumberGivesNoScoreAndIsNamed) {
  for (const char* wrong :
       {"good!", "nan", "inf", "-Infinity", "", "1 2", "true", "[1]", "{\"score\": 1}",
        "{\"reward\": \"1\"}", "{\"reward\": null}", "0.5;"}) {
    const auto reward = program(
        loop("case \"$line\" in *odd*) echo '" + std::string(wrong) + "';; *) echo 1;; esac"));
    const auto results = scores(*reward, {"even", "odd", "even"});
    ASSERT_EQ(results.size(), 3u);
    EXPECT_EQ(results[0], 1.0) << wrong;
    EXPECT_TRUE(std::isnan(results[1])) << wrong;
    EXPECT_EQ(results[2], 1.0) << wrong;
    EXPECT_EQ(reward->errors(), 1) << wrong;
    EXPECT_NE(reward->last_error().find("'" + std::string(wrong) + "'"), std::string::npos)
        << reward->last_error();
  }
}

TEST(ProgramReward, AHangingProgramIsKilledAndStartedAgain) {
  const Scratch scratch;
  const std::string ids = (scratch / "ids").string();
  const auto reward = program(
      "echo $$ >> " + ids + "; " + loop("case \"$line\" in *hang*) sleep 1000;; *) echo 1;; esac"),
      2);
  const auto results = scores(*reward, {"fine", "hang", "fine", "hang"});
  ASSERT_EQ(results.size(), 4u);
  EXPECT_EQ(results[0], 1.0);
  EXPECT_TRUE(std::isnan(results[1]));
  EXPECT_EQ(results[2], 1.0);
  EXPECT_TRUE(std::isnan(results[3]));
  EXPECT_EQ(reward->errors(), 2);
  EXPECT_NE(reward->last_error().find("timeout = 2 s"), std::string::npos) << reward->last_error();
  EXPECT_EQ(scores(*reward, {"fine"}), std::vector<double>{1.0});
  std::istringstream lines(read_all(scratch / "ids"));
  pid_t first = 0, second = 0, third = 0;
  ASSERT_TRUE(lines >> first >> second >> third);
  EXPECT_FALSE(is_there(first));
  EXPECT_FALSE(is_there(second));
  EXPECT_TRUE(is_there(third));
}

TEST(ProgramReward, OtherWorkersGoOnWhileOneHangs) {
  const auto reward =
      program(loop("case \"$line\" in *hang*) sleep 1000;; *) echo 1;; esac"), 3, 2);
  const auto begin = std::chrono::steady_clock::now();
  const auto results = scores(*reward, {"hang", "a", "b", "c", "hang", "d"});
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(reward->errors(), 2);
  EXPECT_EQ(results[1] + results[2] + results[3] + results[5], 4.0);
  EXPECT_LT(took.count(), 5.5);  // both at the same time
}

TEST(ProgramReward, ACrashCostsOneCompletion) {
  const auto reward =
      program(loop("case \"$line\" in *crash*) echo 'no such key' >&2; exit 7;; *kill*) kill -9 "
                   "$$;; *) echo 2;; esac"));
  const Logged log;
  const auto results = scores(*reward, {"a", "crash", "b", "kill", "c"});
  ASSERT_EQ(results.size(), 5u);
  EXPECT_EQ(results[0] + results[2] + results[4], 6.0);
  EXPECT_TRUE(std::isnan(results[1]));
  EXPECT_TRUE(std::isnan(results[3]));
  EXPECT_EQ(reward->errors(), 2);
  EXPECT_NE(reward->last_error().find("signal 9"), std::string::npos) << reward->last_error();
  EXPECT_TRUE(std::isnan(scores(*reward, {"crash"}).at(0)));
  EXPECT_NE(reward->last_error().find("exit status 7"), std::string::npos) << reward->last_error();
  EXPECT_NE(reward->last_error().find("no such key"), std::string::npos) << reward->last_error();
}

TEST(ProgramReward, ACrashLoopEndsTheRunWithWhatTheProgramSaid) {
  const Logged log;
  const auto reward = program("echo 'cannot import scorer' >&2; exit 3");
  for (int i = 0; i < 10; ++i) submit(*reward, "c");
  const std::string line = failure(*reward);
  EXPECT_NE(line.find("reward judge"), std::string::npos) << line;
  EXPECT_NE(line.find("cannot import scorer"), std::string::npos) << line;
  EXPECT_NE(line.find("exit status 3"), std::string::npos) << line;
  EXPECT_NE(line.find("exit 3'"), std::string::npos) << line;  // the command
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_EQ(failure(*reward), line);
}

TEST(ProgramReward, AProgramThatIsNotThereIsACrashLoopOfTheShell) {
  const Logged log;
  const auto reward = program("/nowhere/scorer --fast");
  for (int i = 0; i < 3; ++i) submit(*reward, "c");
  const std::string line = failure(*reward);
  EXPECT_NE(line.find("exit status 127"), std::string::npos) << line;
  EXPECT_NE(line.find("/nowhere/scorer"), std::string::npos) << line;
}

TEST(ProgramReward, AProgramThatNeverAnswersEndsTheRun) {
  const auto reward = program("sleep 1000", 0.05);
  for (int i = 0; i < 20; ++i) submit(*reward, "c");
  const std::string line = failure(*reward);
  EXPECT_NE(line.find("none of the first 8 completions"), std::string::npos) << line;
}

TEST(ProgramReward, SurplusLinesSpoilTheAnswersOfTheirBatch) {
  const Logged log;
  const auto reward = program(loop("echo 1; echo 2"));
  const auto results = scores(*reward, {"a", "b", "c"});
  ASSERT_EQ(results.size(), 3u);
  for (const double result : results) EXPECT_TRUE(std::isnan(result));
  EXPECT_EQ(reward->errors(), 3);
  EXPECT_NE(reward->last_error().find("more lines than it was asked for"), std::string::npos);
  EXPECT_NE(log.text().find("reward judge: "), std::string::npos) << log.text();
}

TEST(ProgramReward, ABannerIsASurplusLine) {
  const Logged log;
  const auto reward = program("echo loading; " + loop("echo 1"));
  for (const double result : scores(*reward, {"a", "b", "c"})) EXPECT_TRUE(std::isnan(result));
}

TEST(ProgramReward, MissingLinesCostTheirCompletions) {
  const auto reward = program(loop("case \"$line\" in *skip*) ;; *) echo 1;; esac"), 1);
  const auto results = scores(*reward, {"a", "skip", "b"});
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0], 1.0);
  EXPECT_TRUE(std::isnan(results[1]));
  EXPECT_EQ(results[2], 1.0);
}

TEST(ProgramReward, HalfALineIsNoAnswer) {
  const auto reward =
      program(loop("case \"$line\" in *half*) printf 0.7; exit 0;; *) echo 1;; esac"));
  const auto results = scores(*reward, {"a", "half", "b"});
  EXPECT_EQ(results[0] + results[2], 2.0);
  EXPECT_TRUE(std::isnan(results[1]));
}

TEST(ProgramReward, ALineWithoutEndIsStopped) {
  const auto reward =
      program(loop("case \"$line\" in *flood*) yes 1 | tr -d '\\n';; *) echo 1;; esac"));
  const auto results = scores(*reward, {"a", "flood", "b"});
  EXPECT_EQ(results[0] + results[2], 2.0);
  EXPECT_TRUE(std::isnan(results[1]));
  EXPECT_NE(reward->last_error().find("without an end of line"), std::string::npos);
}

TEST(ProgramReward, AFloodOfLinesIsStopped) {
  const Logged log;
  const auto reward = program(loop("case \"$line\" in *flood*) yes 1;; *) echo 1;; esac"));
  for (const double result : scores(*reward, {"a", "flood", "b"})) {
    EXPECT_TRUE(result == 1.0 || std::isnan(result));
  }
  EXPECT_EQ(scores(*reward, {"a"}), std::vector<double>{1.0});
}

TEST(ProgramReward, AProgramThatEndedBetweenStepsIsStartedAgain) {
  const auto reward = program("read -r line; echo 1");
  for (int step = 0; step < 5; ++step) {
    EXPECT_EQ(scores(*reward, {"a"}), std::vector<double>{1.0}) << step;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_EQ(reward->errors(), 0);
}

TEST(ProgramReward, AClosedInputIsNoSignal) {
  const Logged log;
  const auto reward = program("read -r line; echo 1; exec 0<&-; sleep 0.3; exit 4");
  const auto results = scores(*reward, {"a", std::string(1 << 20, 'b'), "c"});
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0], 1.0);
  EXPECT_TRUE(std::isnan(results[1]));
  EXPECT_EQ(results[2], 1.0);
}

TEST(ProgramReward, SubmittingDoesNotWaitForASlowProgram) {
  const auto reward = program("sleep 1000");
  const std::string large(1 << 20, 'x');
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 20; ++i) submit(*reward, large);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took.count(), 5.0);
}

TEST(ProgramReward, LargeCompletionsAndBrokenCharactersPass) {
  const auto reward = program(
      "python3 -c \"import json, sys\nfor line in sys.stdin: "
      "print(len(json.loads(line)['completion']))\"");
  const auto results = scores(*reward, {std::string(3 << 20, 'x'), "a\xff\xe2\x82", "\n\n"});
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0], 3 << 20);
  EXPECT_EQ(results[1], 3);
  EXPECT_EQ(results[2], 2);
}

TEST(ProgramReward, StandardErrorGoesToTheLogWithTheName) {
  const Logged log;
  {
    const auto reward = program("echo begins >&2; " + loop("echo 'one line' >&2; echo 1") +
                                "; printf 'last words' >&2");
    scores(*reward, {"a"});
  }
  EXPECT_NE(log.text().find("reward judge: begins\n"), std::string::npos) << log.text();
  EXPECT_NE(log.text().find("reward judge: one line\n"), std::string::npos) << log.text();
  EXPECT_NE(log.text().find("reward judge: last words\n"), std::string::npos) << log.text();
}

TEST(ProgramReward, TheEnvironmentIsReduced) {
  ::setenv("HF_TOKEN", "t", 1);
  ::setenv("LC_API_KEY", "k", 1);
  ::setenv("PYTHON_SECRET", "s", 1);
  ::setenv("SOMETHING_ELSE", "e", 1);
  ::setenv("LC_ALL", "C.UTF-8", 1);
  ::setenv("CUDA_VISIBLE_DEVICES", "1", 1);
  const auto reward =
      program(loop("if env | grep -q -E 'TOKEN|SECRET|KEY|SOMETHING'; then echo 0; "
                   "else echo \"$(env | grep -c -E "
                   "'^(PATH|LC_ALL|CUDA_VISIBLE_DEVICES|PYTHONUNBUFFERED)=')\"; fi"));
  EXPECT_EQ(scores(*reward, {"a"}), std::vector<double>{4.0});
  for (const char* name : {"HF_TOKEN", "LC_API_KEY", "PYTHON_SECRET", "SOMETHING_ELSE", "LC_ALL",
                           "CUDA_VISIBLE_DEVICES"}) {
    ::unsetenv(name);
  }
}

TEST(ProgramReward, ProgramsInheritNoDescriptorsAndNoSignalMask) {
  const auto reward = program(loop("set -- /proc/$$/fd/*; echo $#; kill -TERM $$"));
  // 0, 1, 2, and one of the shell's own at most.
  EXPECT_LE(scores(*reward, {"a"}).at(0), 4.0);
  submit(*reward, "b");
  EXPECT_LE(reward->collect().at(0), 4.0);  // TERM ended the first: it was not blocked
}

TEST(ProgramReward, NothingIsLeftBehind) {
  const Scratch scratch;
  const std::string id = (scratch / "id").string();
  const size_t before = open_descriptors();
  {
    // One that hangs with a child of its own, and one that is idle.
    const auto hanging = program("sleep 1000 & echo $! > " + id + "; wait");
    submit(*hanging, "a");
    const auto idle = program(loop("echo 1"), 20, 3);
    scores(*idle, {"a", "b", "c", "d"});
    ASSERT_GT(written_id(id), 0);
    EXPECT_GT(open_descriptors(), before);
  }
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_FALSE(has_children());
  EXPECT_TRUE(goes_away(written_id(id)));
}

TEST(ProgramReward, ProgramsThatIgnoreTheEndOfInputAreKilled) {
  const auto begin = std::chrono::steady_clock::now();
  {
    const auto reward =
        program("read -r line; echo 1; trap '' TERM HUP; while :; do sleep 0.1; done");
    EXPECT_EQ(scores(*reward, {"a"}), std::vector<double>{1.0});
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took.count(), 10.0);
  EXPECT_FALSE(has_children());
}

TEST(ProgramReward, ProgramsDieWithUs) {
  const Scratch scratch;
  const std::string id = (scratch / "id").string();
  const pid_t us = ::fork();
  if (us == 0) {
    const auto reward = program("echo $$ > " + id + "; read -r line; while :; do :; done");
    submit(*reward, "a");
    if (written_id(id) > 0) ::kill(::getpid(), SIGKILL);
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(us, &status, 0), us);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(goes_away(written_id(id)));
}

TEST(ProgramReward, NothingRunsBeforeTheFirstCompletion) {
  const Scratch scratch;
  { const auto reward = program("touch " + (scratch / "ran").string()); }
  EXPECT_FALSE(std::filesystem::exists(scratch / "ran"));
}

TEST(ProgramReward, WrongSettingsAreRefusedByKey) {
  const auto refusal = [](const recipes::Reward& recipe) -> std::string {
    try {
      build_reward(recipe, 16);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  recipes::Reward recipe = reward_of("program");
  EXPECT_NE(refusal(recipe).find("command: missing"), std::string::npos);
  recipe.command = " ";
  EXPECT_NE(refusal(recipe).find("command: missing"), std::string::npos);
  recipe.command = std::vector<std::string>{};
  EXPECT_NE(refusal(recipe).find("command: missing"), std::string::npos);
  recipe.command = std::vector<std::string>{"no-such-program-at-all", "-x"};
  EXPECT_NE(refusal(recipe).find("no-such-program-at-all"), std::string::npos);
  recipe.command = "cat";
  recipe.workers = 0;
  EXPECT_NE(refusal(recipe).find("workers = 0"), std::string::npos);
  recipe.workers = 1;
  recipe.timeout = 0;
  EXPECT_NE(refusal(recipe).find("timeout"), std::string::npos);
}

}  // namespace
}  // namespace temper::trainer
