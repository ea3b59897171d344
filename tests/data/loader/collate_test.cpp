#include "data/loader/collate.h"

#include <gtest/gtest.h>

namespace temper::data {
namespace {

std::vector<int64_t> values(const at::Tensor& tensor) {
  const int64_t* data = tensor.const_data_ptr<int64_t>();
  return {data, data + tensor.numel()};
}

TEST(Collate, PredictsTheNextTokenOfTheSameDocumentOnly) {
  const std::vector<Documents> rows = {
      {{.ids = {11, 12, 13}, .supervised = {1, 1, 1}}, {.ids = {21, 22}, .supervised = {1, 1}}}};
  const Batch batch = collate(rows);
  EXPECT_EQ(values(batch.token_ids), (std::vector<int64_t>{11, 12, 13, 21, 22}));
  EXPECT_EQ(values(batch.labels), (std::vector<int64_t>{12, 13, -100, 22, -100}));
  EXPECT_EQ(values(batch.positions), (std::vector<int64_t>{0, 1, 2, 0, 1}));
  const int32_t* ends = batch.document_ends.const_data_ptr<int32_t>();
  EXPECT_EQ(std::vector<int32_t>(ends, ends + batch.document_ends.numel()),
            (std::vector<int32_t>{0, 3, 5}));
  EXPECT_EQ(batch.supervised, 3);
  EXPECT_EQ(batch.input_tokens, 5);
}

TEST(Collate, CountsOnlyWhatTheMaskCounts) {
  const Batch batch =
      collate(std::vector<Documents>{{{.ids = {1, 2, 3, 4}, .supervised = {1, 0, 1, 0}}}});
  EXPECT_EQ(values(batch.labels), (std::vector<int64_t>{-100, 3, -100, -100}));
  EXPECT_EQ(batch.supervised, 1);
}

TEST(Collate, PadsShorterRowsWithADocumentThatNeverCounts) {
  const std::vector<Documents> rows = {{{.ids = {5, 6, 7}, .supervised = {1, 1, 1}}},
                                       {{.ids = {8}, .supervised = {1}}}};
  const Batch batch = collate(rows);
  EXPECT_EQ(batch.token_ids.sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(values(batch.token_ids), (std::vector<int64_t>{5, 6, 7, 8, 0, 0}));
  EXPECT_EQ(values(batch.labels), (std::vector<int64_t>{6, 7, -100, -100, -100, -100}));
  EXPECT_EQ(values(batch.positions), (std::vector<int64_t>{0, 1, 2, 0, 0, 1}));
  const int32_t* ends = batch.document_ends.const_data_ptr<int32_t>();
  EXPECT_EQ(std::vector<int32_t>(ends, ends + batch.document_ends.numel()),
            (std::vector<int32_t>{0, 3, 4, 6}));
  EXPECT_EQ(batch.input_tokens, 4);
  EXPECT_EQ(batch.rows, 2);
}

std::vector<int64_t> longs(const at::Tensor& tensor) {
  const at::Tensor wide = tensor.to(at::kLong).reshape({-1});
  return {wide.const_data_ptr<int64_t>(), wide.const_data_ptr<int64_t>() + wide.numel()};
}

// A preference of the prompt 1 2 3, whose completions begin alike; and a row of one document.
std::vector<TokenizedRow> rows_of_documents() {
  return {{.documents = {{.ids = {1, 2, 3, 4, 5}, .supervised = {0, 0, 0, 1, 1}},
                         {.ids = {1, 2, 3, 4, 6, 7}, .supervised = {0, 0, 0, 1, 1, 1}}},
           .columns = {}},
          {.documents = {{.ids = {8, 9, 10}, .supervised = {0, 0, 1}}}, .columns = {}}};
}

TEST(CollateRows, TheSharedPromptIsThereOnceAndPredictsBothCompletions) {
  const Batch batch = collate_rows(rows_of_documents(), {});
  EXPECT_EQ(longs(batch.token_ids), (std::vector<int64_t>{1, 2, 3, 4, 5, 4, 6, 7, 8, 9, 10}));
  EXPECT_EQ(longs(batch.positions), (std::vector<int64_t>{0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 2}));
  EXPECT_EQ(longs(batch.document_ends), (std::vector<int64_t>{0, 3, 5, 8, 11}));
  EXPECT_EQ(longs(batch.prefixes), (std::vector<int64_t>{-1, 0, 0, -1}));
  EXPECT_EQ(longs(batch.targets.positions), (std::vector<int64_t>{2, 3, 2, 5, 6, 9}));
  EXPECT_EQ(longs(batch.targets.labels), (std::vector<int64_t>{4, 5, 4, 6, 7, 10}));
  EXPECT_EQ(longs(batch.targets.ends), (std::vector<int64_t>{0, 2, 5, 6}));
  EXPECT_EQ(longs(batch.targets.last_tokens), (std::vector<int64_t>{4, 7, 10}));
  EXPECT_EQ(batch.rows, 2);
  EXPECT_EQ(batch.input_tokens, 14);
  EXPECT_EQ(batch.supervised, 6);
}

TEST(CollateRows, WithoutSharingEveryDocumentHasAPromptOfItsOwn) {
  const Batch batch = collate_rows(rows_of_documents(), {.share_prefixes = false});
  EXPECT_EQ(longs(batch.document_ends), (std::vector<int64_t>{0, 5, 11, 14}));
  EXPECT_FALSE(batch.prefixes.defined());
  EXPECT_EQ(longs(batch.targets.positions), (std::vector<int64_t>{2, 3, 7, 8, 9, 12}));
}

TEST(CollateRows, PromptsMayBeTargetsToo) {
  const Batch batch = collate_rows(rows_of_documents(), {.prompts_too = true});
  EXPECT_EQ(longs(batch.targets.positions),
            (std::vector<int64_t>{0, 1, 2, 3, 0, 1, 2, 5, 6, 8, 9}));
  EXPECT_EQ(longs(batch.targets.ends), (std::vector<int64_t>{0, 4, 9, 11}));
}

}  // namespace
}  // namespace temper::data
