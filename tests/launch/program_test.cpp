#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "data/io/json.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

struct Result {
  int code = -1;
  std::string out, error;
};

std::string content(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

/// Runs the program in a directory of its own, as a shell would.
class Program : public testing::Test {
 protected:
  Program() : root_(fs::temp_directory_path() / ("temper-program-" + std::to_string(::getpid()))) {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  ~Program() override { fs::remove_all(root_); }

  Result run(const std::string& arguments, const std::string& input = "") {
    std::ofstream(root_ / "stdin.txt") << input;
    const std::string command = "cd " + root_.string() + " && HOME=" + root_.string() + " " +
                                std::getenv("TEMPER_PROGRAM") + " " + arguments +
                                " < stdin.txt > stdout.txt 2> stderr.txt";
    const int status = std::system(command.c_str());
    return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
            .out = content(root_ / "stdout.txt"),
            .error = content(root_ / "stderr.txt")};
  }

  /// A tokenizer of this repository: byte-level BPE.
  static std::string tokenizer() {
    return std::string(std::getenv("TEMPER_SOURCE_DIR")) + "/configs/quickstart";
  }

  /// A tiny pretrained Llama, or "" where shared/ is absent: it is no part of the checkout, and tests of
  /// what it says are skipped; system_commands has the commands themselves, on a model it makes.
  static std::string stories() {
    const char* shared = std::getenv("TEMPER_SHARED");
    const fs::path root = shared != nullptr
                              ? fs::path(shared)
                              : fs::path(std::getenv("TEMPER_SOURCE_DIR")) / "../shared";
    const fs::path model = root / "models/stories260K";
    return fs::exists(model / "config.json") ? model.string() : "";
  }

  fs::path root_;
};

TEST_F(Program, VersionIsOneLineEach) {
  const Result result = run("--version");
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.out.rfind("temper 0.1.0\ngit revision ", 0), 0U) << result.out;
  for (const char* part : {"\nLibTorch ", "\nMPI ", "\nCUDA "})
    EXPECT_NE(result.out.find(part), std::string::npos);
}

TEST_F(Program, HelpListsTheCommandsAndEachHasAnExample) {
  const Result help = run("--help");
  EXPECT_EQ(help.code, 0);
  for (const char* command : {"generate", "tokenize", "export", "inspect", "init", "doctor"}) {
    EXPECT_NE(help.out.find(std::string("  ") + command), std::string::npos) << command;
    const Result own = run(std::string(command) + " --help");
    EXPECT_EQ(own.code, 0) << command;
    EXPECT_NE(own.out.find("Example:\n"), std::string::npos) << command;
  }
}

TEST_F(Program, AnUnknownCommandNamesItsNeighbour) {
  const Result result = run("tokenise");
  EXPECT_EQ(result.code, 2);
  EXPECT_EQ(result.error, "temper tokenise: no such command; did you mean temper tokenize?\n");
}

TEST_F(Program, OutputThatCannotBeWrittenIsAFailure) {
  const std::string command = std::string(std::getenv("TEMPER_PROGRAM")) +
                              " --help > /dev/full 2> " + (root_ / "stderr.txt").string();
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1);
  EXPECT_EQ(content(root_ / "stderr.txt"), "error: standard output: cannot write\n");
}

TEST_F(Program, TokenizeAndDecodeAreInverse) {
  const std::string text = "int main() { return 0; }\n\ntemplate <typename T>\nüñí 漢字 🙂";
  const Result ids = run("tokenize " + tokenizer(), text);
  ASSERT_EQ(ids.code, 0) << ids.error;
  EXPECT_EQ(ids.out.rfind("[", 0), 0U);
  const Result back = run("tokenize " + tokenizer() + " --decode --skip-special-tokens", ids.out);
  ASSERT_EQ(back.code, 0) << back.error;
  EXPECT_EQ(back.out, text + "\n");
}

TEST_F(Program, TokenizeReadsAndWritesJsonStrings) {
  const Result ids = run("tokenize --json " + tokenizer(), "\"a\\nb\"\n");
  ASSERT_EQ(ids.code, 0) << ids.error;
  EXPECT_EQ(run("tokenize --json --decode --skip-special-tokens " + tokenizer(), ids.out).out,
            "\"a\\nb\"\n");
}

TEST_F(Program, TokenizeNamesTheLineThatIsWrong) {
  EXPECT_EQ(run("tokenize " + tokenizer(), "fine\n\xff\xfe\n").error, "stdin:2: not UTF-8\n");
  EXPECT_EQ(run("tokenize --json " + tokenizer(), "[1]\n").error,
            "stdin:1: expected a JSON string, found array\n");
  EXPECT_EQ(run("tokenize --decode " + tokenizer(), "[1, 99999999]\n").code, 2);
  EXPECT_EQ(run("tokenize --chat --text " + tokenizer(), "{\"mesages\": []}\n").error,
            "stdin:1: unknown key \"mesages\": did you mean \"messages\"?\n");
}

TEST_F(Program, TokenizeRefusesContradictions) {
  EXPECT_EQ(run("tokenize --text " + tokenizer()).error, "temper tokenize: --text needs --chat\n");
  EXPECT_EQ(run("tokenize --skip-special-tokens " + tokenizer()).error,
            "temper tokenize: --skip-special-tokens needs --decode\n");
}

TEST_F(Program, ChatRendersTheTemplateOrItsIds) {
  fs::copy(tokenizer(), root_ / "model");
  std::ofstream(root_ / "model/chat_template.jinja")
      << "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if "
         "add_generation_prompt %}<assistant>{% endif %}";
  const std::string chat =
      "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"add_generation_prompt\": "
      "true}\n";
  const Result text = run("tokenize --chat --text model", chat);
  ASSERT_EQ(text.code, 0) << text.error;
  EXPECT_EQ(text.out, "\"<user>hi<assistant>\"\n");
  const Result ids = run("tokenize --chat model", chat);
  EXPECT_EQ(run("tokenize --decode model", ids.out).out, "<user>hi<assistant>\n");
}

TEST_F(Program, WhatThisVersionLacksIsRefusedByName) {
  EXPECT_EQ(run("export a b --format gguf").error,
            "temper export: --format gguf: this version of temper writes safetensors only\n");
}

TEST_F(Program, GenerateChecksItsSettings) {
  if (stories().empty()) GTEST_SKIP() << "shared/models is absent";
  EXPECT_EQ(run("generate " + stories() + " --prompt x --top-p 1.5").error,
            "temper generate: --top-p 1.5: must be above 0 and at most 1\n");
  EXPECT_EQ(run("generate " + stories() + " --prompt x --max-new-tokens 0").error,
            "temper generate: --max-new-tokens 0: must be at least 1\n");
  EXPECT_EQ(run("generate " + stories()).error, "temper generate: --prompt is missing\n");
  EXPECT_EQ(run("generate " + stories() + " --prompt x --chat").code, 2);
}

TEST_F(Program, GreedyGenerationEqualsTheReference) {
  if (stories().empty()) GTEST_SKIP() << "shared/models is absent";
  const data::Json reference = data::read_json(fs::path(stories()) / "reference.json");
  for (const data::Json& golden : reference.at("greedy")) {
    const auto prompt = golden.at("prompt").get<std::string>();
    // The completion alone, as decoding its ids gives it: without the space that begins a word.
    std::string rest = golden.at("text").get<std::string>().substr(prompt.size());
    if (rest.starts_with(' ')) rest.erase(0, 1);
    const Result result =
        run("generate " + stories() + " --max-new-tokens " +
            std::to_string(golden.at("greedy").size()) + " --prompt '" + prompt + "'");
    ASSERT_EQ(result.code, 0) << result.error;
    EXPECT_EQ(result.out, rest + "\n") << prompt;
    EXPECT_NE(result.error.find("tokens/s"), std::string::npos);
  }
}

TEST_F(Program, AStopStringEndsTheCompletionBeforeIt) {
  if (stories().empty()) GTEST_SKIP() << "shared/models is absent";
  const Result whole =
      run("generate " + stories() + " --prompt 'Once upon a time' --max-new-tokens 40");
  const Result stopped = run("generate " + stories() +
                             " --prompt 'Once upon a time' --max-new-tokens 40 --stop 'little g'");
  ASSERT_EQ(stopped.code, 0) << stopped.error;
  EXPECT_EQ(stopped.out, whole.out.substr(0, whole.out.find("little g")) + "\n");
}

TEST_F(Program, TheSameSeedDrawsTheSameText) {
  if (stories().empty()) GTEST_SKIP() << "shared/models is absent";
  const std::string command =
      "generate " + stories() + " --prompt 'Once' --temperature 1 --max-new-tokens 30 --seed ";
  const std::string first = run(command + "1").out;
  EXPECT_EQ(run(command + "1").out, first);
  EXPECT_NE(run(command + "2").out, first);
}

TEST_F(Program, AnExportOfAModelIsThatModel) {
  if (stories().empty()) GTEST_SKIP() << "shared/models is absent";
  const Result result = run("export " + stories() + " out");
  ASSERT_EQ(result.code, 0) << result.error;
  const std::string ask = " --prompt 'Tom' --max-new-tokens 20";
  EXPECT_EQ(run("generate out" + ask).out, run("generate " + stories() + ask).out);
}

TEST_F(Program, ExportNeverReplacesADirectoryThatIsNoExport) {
  if (stories().empty()) GTEST_SKIP() << "shared/models is absent";
  fs::create_directories(root_ / "precious");
  std::ofstream(root_ / "precious/thesis.tex") << "words";
  EXPECT_EQ(run("export " + stories() + " precious").code, 2);
  EXPECT_EQ(content(root_ / "precious/thesis.tex"), "words");
}

TEST_F(Program, InspectSaysWhatAFileHolds) {
  if (stories().empty()) GTEST_SKIP() << "shared/models is absent";
  const Result result = run("inspect --json " + stories() + "/model.safetensors");
  ASSERT_EQ(result.code, 0) << result.error;
  const auto report = data::Json::parse(result.out);
  EXPECT_EQ(report.at("kind"), "safetensors");
  EXPECT_EQ(report.at("numbers"), 260032);
}

TEST_F(Program, DoctorSaysWhatThereIsAndStoresThePeak) {
  const Result result = run("doctor --json");
  ASSERT_EQ(result.code, 0) << result.error;
  const auto report = data::Json::parse(result.out);
  EXPECT_GT(report.at("rates").at("gemm_fp32_gflops").get<double>(), 0.1);
  for (const auto& missing : report.at("missing"))
    EXPECT_FALSE(missing.at("mend").get<std::string>().empty());
  EXPECT_TRUE(fs::exists(root_ / ".cache/temper/peaks.json"));
}

TEST_F(Program, DoctorTriesThePluginWhereThereIsADriver) {
  fs::create_directories(root_ / "bin");
  fs::create_directories(root_ / "lib");
  fs::copy_file(std::getenv("TEMPER_PROGRAM"), root_ / "bin/temper");
  std::ofstream(root_ / "lib/libtemper_cuda.so") << "no library";
  const std::string command = "HOME=" + root_.string() +
                              " LD_LIBRARY_PATH=" + std::getenv("TEMPER_FAKE_CUDA_DRIVER") + " " +
                              (root_ / "bin/temper").string() + " doctor --json > " +
                              (root_ / "stdout.txt").string();
  ASSERT_EQ(std::system(command.c_str()), 0);
  const auto report = data::Json::parse(content(root_ / "stdout.txt"));
  EXPECT_EQ(report.at("cuda").at("driver"), "13.0");
  EXPECT_EQ(report.at("cuda").at("devices"), 0);
  EXPECT_NE(report.at("cuda").at("failure").get<std::string>().find("libtemper_cuda.so"),
            std::string::npos);
  EXPECT_NE(report.at("missing").dump().find("the CUDA plugin cannot be used"), std::string::npos);
}

}  // namespace
}  // namespace temper
