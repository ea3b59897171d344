#include "recipes/reference.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

namespace temper::recipes {
namespace {

TEST(Reference, EqualsThePageInDocs) {
  const char* root = std::getenv("TEMPER_SOURCE_DIR");
  ASSERT_NE(root, nullptr) << "run by ctest, or with TEMPER_SOURCE_DIR set";
  std::ifstream page(std::string(root) + "/docs/recipe.md");
  std::ostringstream text;
  text << page.rdbuf();
  EXPECT_TRUE(text.str() == reference_markdown())
      << "docs/recipe.md is not what recipes/schema.cpp says. Make it anew:\n"
         "    ninja -C build temper_recipe_reference && build/bin/temper_recipe_reference > "
         "docs/recipe.md";
}

}  // namespace
}  // namespace temper::recipes
