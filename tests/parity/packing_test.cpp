// Packed rows against trl 1.16.0 (make_packing.py): the same bins in the same order, exactly.

#include <gtest/gtest.h>

#include "data/io/json.h"
#include "data/loader/pack.h"
#include "tests/parity/golden.h"

namespace temper::data {
namespace {

TEST(Packing, EqualsTrl) {
  const Json cases = read_json(golden_files("packing") / "packing.json");
  ASSERT_FALSE(cases.empty());
  for (const Json& expected : cases) {
    const auto lengths = expected["lengths"].get<std::vector<int32_t>>();
    const auto packing = expected["strategy"] == "bfd"         ? recipes::Packing::kBfd
                         : expected["strategy"] == "bfd_split" ? recipes::Packing::kBfdSplit
                                                               : recipes::Packing::kWrapped;
    const PackedRows packed = pack(lengths, expected["capacity"].get<int64_t>(), packing, 1000);
    ASSERT_EQ(packed.size(), static_cast<int64_t>(expected["bins"].size()));
    for (int64_t i = 0; i < packed.size(); ++i) {
      Json found = Json::array();
      for (const Segment& segment : packed[i])
        found.push_back({segment.row, segment.begin, segment.end});
      EXPECT_EQ(found, expected["bins"][static_cast<size_t>(i)]) << "bin " << i;
    }
  }
}

}  // namespace
}  // namespace temper::data
