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

}  // namespace
}  // namespace temper::data
