#include "tests/support/reference_data.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace caravan::testing {

std::string RepositoryPath(std::string_view relative) {
  return (std::filesystem::current_path() / relative).string();
}

std::optional<std::string> ReferencePath(std::string_view relative) {
  const char* const variable = std::getenv("CARAVAN_REFERENCE_DATA");
  const std::filesystem::path root =
      variable != nullptr ? std::filesystem::path(variable)
                          : std::filesystem::current_path() / "../shared/data";
  const std::filesystem::path path = root / relative;
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path.string();
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << "cannot read " << path;
  std::ostringstream content;
  content << in.rdbuf();
  return content.str();
}

}  // namespace caravan::testing
