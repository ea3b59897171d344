#include "data/shards/prepare.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/data/temporary_directory.h"

namespace temper::data {
namespace {

// A token a character; upper case is supervised. "!" makes a bad row.
Example letters_of(const Row& row, const std::string& text) {
  Example example;
  for (const char c : text) {
    if (c == '!') throw UserError(row.where() + ": exclaims");
    example.ids.push_back(c);
    example.supervised.push_back(c < 'a');
  }
  return example;
}

// Of column "text": a document, or two with a bar between them.
struct Letters {
  std::atomic<int> encoded = 0;
  RowRules rules{};
  std::optional<size_t> cut_to{};  // by the encoder, which keeps the last letter
  EncoderFactory factory() {
    return [this](const recipes::DataSource&, const Row&) {
      return SourceEncoder{
          .encode =
              [this](const Row& row) {
                ++encoded;
                const auto text = row.columns.at("text").get<std::string>();
                const size_t bar = text.find('|');
                TokenizedRow tokens;
                tokens.documents = {letters_of(row, text.substr(0, bar))};
                if (bar != std::string::npos) {
                  tokens.documents.push_back(letters_of(row, text.substr(bar + 1)));
                  tokens.columns = "good\nbad";
                }
                for (Example& document : tokens.documents) cut(document, tokens);
                return tokens;
              },
          .fingerprint = "letters",
          .format = "letters",
          .rules = rules,
          .statement = ""};
    };
  }
  void cut(Example& document, TokenizedRow& row) const {
    if (!cut_to || document.ids.size() <= *cut_to) return;
    row.cut += std::ssize(document.ids) - static_cast<int64_t>(*cut_to);
    document.ids[*cut_to - 1] = document.ids.back();
    document.ids.resize(*cut_to);
    document.supervised.resize(*cut_to);
  }
};

class Prepare : public testing::Test {
 protected:
  PrepareOptions options() const { return {.cache = directory.path() / "cache", .max_length = 8}; }
  recipes::DataSource jsonl(const std::string& name, const std::vector<std::string>& texts) const {
    std::string content;
    for (const std::string& text : texts) content += "{\"text\": \"" + text + "\"}\n";
    return {.path = directory.file(name, content).string(), .weight = 1.0, .columns = {}};
  }
  std::shared_ptr<const TokenDataset> run(const std::vector<recipes::DataSource>& sources,
                                          const PrepareOptions& how) {
    return prepare(sources, letters.factory(), how, &report);
  }
  std::vector<std::string> refusal(const std::vector<recipes::DataSource>& sources,
                                   const PrepareOptions& how) {
    try {
      run(sources, how);
    } catch (const UserError& error) {
      std::vector<std::string> lines = error.lines();
      for (std::string& line : lines) {
        const std::string prefix = directory.path().string() + "/";
        for (size_t at; (at = line.find(prefix)) != std::string::npos;)
          line.erase(at, prefix.size());
      }
      return lines;
    }
    return {};
  }
  PrepareOptions skipping() const {
    PrepareOptions how = options();
    how.on_bad_row = recipes::OnBadRow::kSkip;
    return how;
  }
  static std::string text(const Example& example) {
    return {example.ids.begin(), example.ids.end()};
  }
  static std::string text(const TokenDataset& dataset, int64_t i) {
    return text(dataset.example(i));
  }

  TemporaryDirectory directory;
  Letters letters;
  PrepareReport report;
};

TEST_F(Prepare, GivesExamplesInFileOrderAndCountsThem) {
  const auto dataset =
      run({jsonl("a.jsonl", {"xAB", "yCDE"}), jsonl("b.jsonl", {"zF"})}, options());
  ASSERT_EQ(dataset->size(), 3);
  EXPECT_EQ(text(*dataset, 0), "xAB");
  EXPECT_EQ(text(*dataset, 2), "zF");
  EXPECT_EQ(dataset->example(1).supervised, (std::vector<uint8_t>{0, 1, 1, 1}));
  EXPECT_EQ(report.files, 2);
  EXPECT_EQ(report.rows, 3);
  EXPECT_EQ(report.tokens, 9);
  EXPECT_EQ(report.supervised, 6);
  EXPECT_FALSE(report.from_cache);
  EXPECT_DOUBLE_EQ(dataset->mean_length(), 3);
}

TEST_F(Prepare, TokenizesOnceWhateverTheLengthAndTheName) {
  const std::vector<std::string> texts = {"xABCDEFGHIJK", "yB"};
  run({jsonl("a.jsonl", texts)}, options());
  PrepareOptions longer = options();
  longer.max_length = 100;
  const auto dataset = run({jsonl("renamed.jsonl", texts)}, longer);
  EXPECT_TRUE(report.from_cache);
  EXPECT_EQ(letters.encoded, 2);
  EXPECT_EQ(text(*dataset, 0), "xABCDEFGHIJK");
  run({jsonl("a.jsonl", {"changed A"})}, longer);
  EXPECT_FALSE(report.from_cache);
}

TEST_F(Prepare, TruncatesLongRowsAtTheEnd) {
  const auto dataset = run({jsonl("a.jsonl", {"xABCDEFGHI", "yB"})}, options());
  EXPECT_EQ(text(*dataset, 0), "xABCDEFG");
  EXPECT_EQ(report.long_rows, 1);
  EXPECT_EQ(report.tokens_cut, 2);
  EXPECT_EQ(report.supervised, 8);
}

TEST_F(Prepare, DropsLongRowsWhereThatIsWhatAutoMeans) {
  letters.rules.on_long_row = recipes::OnLongRow::kDrop;
  EXPECT_EQ(run({jsonl("a.jsonl", {"xABCDEFGHI", "yB"})}, options())->size(), 1);
  EXPECT_EQ(report.rows_dropped, 1);
}

TEST_F(Prepare, GivesAllDocumentsOfARow) {
  const auto dataset = run({jsonl("a.jsonl", {"xA|xBC", "yCDEFGHIJKL|yD", "z|zE"})}, skipping());
  ASSERT_EQ(dataset->size(), 2);  // z has nothing that is trained on
  const TokenizedRow first = dataset->row(0);
  EXPECT_EQ(text(first.documents.at(0)), "xA");
  EXPECT_EQ(text(first.documents.at(1)), "xBC");
  EXPECT_EQ(first.documents.at(1).supervised, (std::vector<uint8_t>{0, 1, 1}));
  EXPECT_EQ(first.columns, "good\nbad");
  EXPECT_EQ(dataset->length(0), 5);
  EXPECT_EQ(text(dataset->row(1).documents.at(0)), "yCDEFGHI");
  EXPECT_EQ(text(dataset->row(1).documents.at(1)), "yD");
  EXPECT_EQ(dataset->length(1), 10);
  EXPECT_EQ(report.tokens, 15);
  EXPECT_EQ(report.supervised, 11);
  EXPECT_EQ(report.long_rows, 1);
  EXPECT_EQ(report.tokens_cut, 3);
  EXPECT_EQ(report.bad_rows, 1);
}

TEST_F(Prepare, DropsARowOfWhichOneDocumentIsTooLong) {
  letters.rules.on_long_row = recipes::OnLongRow::kDrop;
  const auto dataset = run({jsonl("a.jsonl", {"xA|yBCDEFGHIJ", "xB|yB"})}, options());
  ASSERT_EQ(dataset->size(), 1);
  EXPECT_EQ(text(dataset->row(0).documents.at(0)), "xB");
  EXPECT_EQ(report.rows_dropped, 1);
}

TEST_F(Prepare, ADocumentWhosePromptFillsTheLengthIsBad) {
  EXPECT_EQ(
      refusal({jsonl("a.jsonl", {"xA|abcdefghijK"})}, options()),
      (std::vector<std::string>{
          "a.jsonl:1: no supervised token within data.max_length = 8 (the first is token 11); "
          "data.max_length=11 reaches them, or data.on_bad_row=skip leaves them out (counted and "
          "listed)"}));
}

TEST_F(Prepare, UnpairsAThousandPairsAtATime) {
  letters.rules.unpaired = true;
  std::vector<std::string> pairs;
  for (int i = 0; i < 1001; ++i) pairs.push_back("aC|bR");
  pairs[1] = "c|dR";  // its first document is left out
  const auto dataset = run({jsonl("a.jsonl", pairs), jsonl("b.jsonl", {"eC|fR"})}, skipping());
  ASSERT_EQ(dataset->size(), 2003);
  const auto letter = [&](int64_t i) { return text(dataset->row(i).documents.at(0)).front(); };
  EXPECT_EQ(letter(0), 'a');
  EXPECT_EQ(dataset->row(0).columns, "good");
  EXPECT_EQ(letter(998), 'a');
  EXPECT_EQ(letter(999), 'b');
  EXPECT_EQ(dataset->row(999).columns, "bad");
  EXPECT_EQ(letter(1000), 'd');
  EXPECT_EQ(letter(1999), 'a');  // pair 1001
  EXPECT_EQ(letter(2000), 'b');
  EXPECT_EQ(letter(2001), 'e');
  EXPECT_EQ(dataset->row(2002).columns, "bad");
}

TEST_F(Prepare, KeepsPromptsThoughNothingOfThemIsTrainedOn) {
  letters.rules = {.on_long_row = recipes::OnLongRow::kDrop, .needs_targets = false};
  const auto dataset = run({jsonl("a.jsonl", {"abc", "abcdefghij", "d"})}, options());
  ASSERT_EQ(dataset->size(), 2);
  EXPECT_EQ(text(*dataset, 1), "d");
  EXPECT_EQ(report.supervised, 0);
  EXPECT_EQ(report.rows_dropped, 1);
}

TEST_F(Prepare, CountsWhatTheEncoderHasCutAlsoFromTheCache) {
  letters.rules.needs_targets = false;
  letters.cut_to = 4;
  const recipes::DataSource source = jsonl("a.jsonl", {"abcdef|abcdefg", "ab|abc", "a|abcde"});
  for (const bool from_cache : {false, true}) {
    const auto dataset = run({source}, options());
    ASSERT_EQ(dataset->size(), 3);
    EXPECT_EQ(text(dataset->row(0).documents.at(0)), "abcf");
    EXPECT_EQ(text(dataset->row(0).documents.at(1)), "abcg");
    EXPECT_EQ(report.from_cache, from_cache);
    EXPECT_EQ(report.long_rows, 2);
    EXPECT_EQ(report.tokens_cut, 6);
  }
}

TEST_F(Prepare, SplitsLongRowsOfText) {
  letters.rules.on_long_row = recipes::OnLongRow::kSplit;
  const auto dataset = run({jsonl("a.jsonl", {"ABCDEFGHIJKLMNOPQ"})}, options());
  ASSERT_EQ(dataset->size(), 2);  // the third piece is one token, which nothing predicts
  EXPECT_EQ(text(*dataset, 1), "IJKLMNOP");
  EXPECT_EQ(report.rows_split, 1);
  EXPECT_EQ(report.tokens_cut, 1);
}

TEST_F(Prepare, LeavesLongRowsWholeForPackingThatSplits) {
  PrepareOptions how = options();
  how.packing_splits = true;
  const std::vector<recipes::DataSource> sources = {jsonl("a.jsonl", {"abcdefghijKLM", "xA"})};
  const auto dataset = run(sources, how);
  ASSERT_EQ(dataset->size(), 2);
  EXPECT_EQ(text(*dataset, 0), "abcdefghijKLM");
  EXPECT_EQ(report.rows_split, 1);
  EXPECT_EQ(report.tokens_cut, 0);
  how.on_long_row = recipes::OnLongRow::kDrop;
  EXPECT_EQ(run(sources, how)->size(), 1);
}

TEST_F(Prepare, DropsOrRefusesLongRowsWhenAsked) {
  const std::vector<recipes::DataSource> sources = {jsonl("a.jsonl", {"xABCDEFGHI", "yB"})};
  PrepareOptions how = options();
  how.on_long_row = recipes::OnLongRow::kDrop;
  EXPECT_EQ(run(sources, how)->size(), 1);
  EXPECT_EQ(report.rows_dropped, 1);
  how.on_long_row = recipes::OnLongRow::kError;
  EXPECT_EQ(
      refusal(sources, how),
      (std::vector<std::string>{
          "a.jsonl:1: 10 tokens",
          "data.on_long_row = \"error\": 1 row above data.max_length = 8: data.max_length=10, or "
          "data.on_long_row=truncate, split or drop"}));
}

TEST_F(Prepare, ARowLeftWithoutASupervisedTokenIsBad) {
  const std::vector<recipes::DataSource> sources = {jsonl("a.jsonl", {"xA", "abcdefghijK", "abc"})};
  EXPECT_EQ(
      refusal(sources, options()),
      (std::vector<std::string>{
          "a.jsonl:2: no supervised token within data.max_length = 8 (the first is token 11)",
          "a.jsonl:3: no supervised token",
          "data.on_bad_row = \"error\": 2 rows without a supervised token (the first are listed): "
          "data.max_length=11 reaches them, or data.on_bad_row=skip leaves them out (counted and "
          "listed)"}));
  PrepareOptions skip = options();
  skip.on_bad_row = recipes::OnBadRow::kSkip;
  EXPECT_EQ(run(sources, skip)->size(), 1);
  EXPECT_EQ(report.bad_rows, 2);
  EXPECT_EQ(report.rows, 3);
}

TEST_F(Prepare, ListsTheFirstBadRowsAndTheRemedies) {
  std::vector<std::string> texts(30, "!");
  texts[0] = "xA";
  const std::vector<std::string> lines = refusal({jsonl("a.jsonl", texts)}, options());
  ASSERT_EQ(lines.size(), 11U);
  EXPECT_EQ(lines[0], "a.jsonl:2: exclaims");
  EXPECT_EQ(lines[9], "a.jsonl:11: exclaims");
  EXPECT_NE(lines[10].find("data.on_bad_row=skip"), std::string::npos);
  EXPECT_LE(letters.encoded, 11);
}

TEST_F(Prepare, SkipsBadRowsWhenAskedAndRemembersThemInTheCache) {
  const std::vector<recipes::DataSource> sources = {jsonl("a.jsonl", {"xA", "!", "yB"})};
  PrepareOptions skip = options();
  skip.on_bad_row = recipes::OnBadRow::kSkip;
  for (const bool cached : {false, true}) {
    EXPECT_EQ(run(sources, skip)->size(), 2);
    EXPECT_EQ(report.bad_rows, 1);
    EXPECT_EQ(report.from_cache, cached);
    ASSERT_EQ(report.first_bad.size(), 1U);
  }
  EXPECT_EQ(refusal(sources, options())[0],
            "a.jsonl:2: exclaims; data.on_bad_row=skip leaves bad rows out (counted and listed)");
}

TEST_F(Prepare, MakesADamagedShardAgainAndSaysSo) {
  const std::vector<recipes::DataSource> sources = {jsonl("a.jsonl", {"xABC", "yB"})};
  for (const bool truncate : {false, true}) {
    run(sources, options());
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(directory.path() / "cache")) {
      if (entry.path().extension() != ".h5") continue;
      if (truncate) {
        std::filesystem::resize_file(entry.path(), entry.file_size() - 100);
      } else {
        std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(entry.file_size() / 2));
        file << "damage";
      }
    }
    const auto dataset = run(sources, options());
    EXPECT_EQ(text(*dataset, 0), "xABC");
    EXPECT_FALSE(report.from_cache);
    ASSERT_EQ(report.statements.size(), 1U);
    EXPECT_NE(report.statements[0].find("damaged"), std::string::npos);
  }
}

TEST_F(Prepare, MakesSeveralSmallShardsOfALargeFileThatIsNotCut) {
  std::string text = "text\n";
  for (char c = 'A'; c <= 'Z'; ++c) text += std::string("x") + c + "\n";
  const std::vector<recipes::DataSource> sources = {
      {.path = directory.file("a.csv", text).string(), .weight = 1.0, .columns = {}}};
  PrepareOptions how = options();
  how.chunk_bytes = 16;  // 8 tokens, 4 rows a shard
  run(sources, how);
  std::vector<std::filesystem::path> shards;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(directory.path() / "cache")) {
    if (entry.path().extension() == ".h5") shards.push_back(entry.path());
  }
  EXPECT_EQ(shards.size(), 7U);
  std::sort(shards.begin(), shards.end());
  std::filesystem::resize_file(shards[3], std::filesystem::file_size(shards[3]) - 1);
  for (const bool from_cache : {false, true}) {
    const auto dataset = run(sources, how);
    EXPECT_EQ(report.from_cache, from_cache);
    EXPECT_EQ(report.statements.size(), from_cache ? 0U : 1U);
    EXPECT_EQ(report.rows, 26);
    ASSERT_EQ(dataset->size(), 26);
    for (int i = 0; i < 26; ++i) {
      EXPECT_EQ(Prepare::text(*dataset, i), std::string("x") + static_cast<char>('A' + i));
    }
  }
}

TEST_F(Prepare, RanksShareTheWorkWithoutTalking) {
  std::vector<recipes::DataSource> sources(1);
  for (int i = 0; i < 12; ++i)
    jsonl("many/" + std::to_string(i) + ".jsonl",
          {"x" + std::string(1, static_cast<char>('A' + i))});
  sources[0].path = (directory.path() / "many").string();
  std::vector<std::shared_ptr<const TokenDataset>> datasets(3);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 3; ++rank) {
    ranks.emplace_back([&, rank] {
      PrepareOptions how = options();
      how.rank = rank;
      how.ranks = 3;
      PrepareReport own;
      datasets[static_cast<size_t>(rank)] = prepare(sources, letters.factory(), how, &own);
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(letters.encoded, 12);
  for (const auto& dataset : datasets) {
    ASSERT_EQ(dataset->size(), 12);
    for (int64_t i = 0; i < 12; ++i) EXPECT_EQ(text(*dataset, i), text(*datasets[0], i));
  }
}

TEST_F(Prepare, AllRanksRefuseWhatOneOfThemFound) {
  const std::vector<recipes::DataSource> sources = {jsonl("a.jsonl", {"xA", "!"})};
  std::vector<std::string> found(2);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 2; ++rank) {
    ranks.emplace_back([&, rank] {
      PrepareOptions how = options();
      how.rank = rank;
      how.ranks = 2;
      PrepareReport own;
      try {
        prepare(sources, letters.factory(), how, &own);
      } catch (const UserError& error) {
        found[static_cast<size_t>(rank)] = error.lines()[0];
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_FALSE(found[0].empty());
  EXPECT_EQ(found[0], found[1]);
}

TEST_F(Prepare, TakesASourceAsOftenAsItsWeightSays) {
  recipes::DataSource twice = jsonl("a.jsonl", {"xA"}),
                      half = jsonl("b.jsonl", {"xB", "xC", "xD", "xE"});
  twice.weight = 2;
  half.weight = 0.5;
  const auto dataset = run({twice, half}, options());
  std::string all;
  for (int64_t i = 0; i < dataset->size(); ++i) all += text(*dataset, i);
  EXPECT_EQ(all, "xAxAxCxE");
  EXPECT_EQ(report.statements.size(), 2U);
}

TEST_F(Prepare, CutsALargeFileIntoChunksAtLineEndsWithTheirLineNumbers) {
  // 70 MiB: two chunks.
  const std::string padding(1 << 20, ' ');
  std::string content;
  for (int i = 0; i < 70; ++i)
    content += "{\"text\":" + padding + (i == 69 ? "\"!\"}\n" : "\"xA\"}\n");
  const recipes::DataSource source{
      .path = directory.file("a.jsonl", content).string(), .weight = 1, .columns = {}};
  PrepareOptions skip = options();
  skip.on_bad_row = recipes::OnBadRow::kSkip;
  skip.workers = 2;
  EXPECT_EQ(run({source}, skip)->size(), 69);
  ASSERT_EQ(report.first_bad.size(), 1U);
  EXPECT_NE(report.first_bad[0].find("a.jsonl:70: exclaims"), std::string::npos);
  int shards = 0;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(directory.path() / "cache")) {
    shards += entry.path().extension() == ".h5";
  }
  EXPECT_EQ(shards, 2);
}

TEST_F(Prepare, RefusesFilesWithoutRows) {
  EXPECT_EQ(refusal({jsonl("a.jsonl", {})}, options()),
            (std::vector<std::string>{"a.jsonl: holds no rows; expected at least one"}));
}

}  // namespace
}  // namespace temper::data
