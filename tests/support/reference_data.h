// Where test data lies.
#ifndef CARAVAN_TESTS_SUPPORT_REFERENCE_DATA_H_
#define CARAVAN_TESTS_SUPPORT_REFERENCE_DATA_H_

#include <optional>
#include <string>
#include <string_view>

namespace caravan::testing {

// Path of a file in the checkout; ctest runs tests in its root.
std::string RepositoryPath(std::string_view relative);

// Path of a file of the reference data (CARAVAN_REFERENCE_DATA, by default
// ../shared/data beside the checkout), or nothing where it is absent: the test
// then skips with CARAVAN_SKIP_WITHOUT_REFERENCE_DATA's reason.
std::optional<std::string> ReferencePath(std::string_view relative);

// Whole content; fails the test when the file cannot be read.
std::string ReadFile(const std::string& path);

}  // namespace caravan::testing

// Declares `name` as a path below the reference data, or skips the test.
#define CARAVAN_REFERENCE_PATH_OR_SKIP(name, relative)                     \
  const std::optional<std::string> name##_or =                             \
      ::caravan::testing::ReferencePath(relative);                         \
  if (!name##_or) {                                                        \
    GTEST_SKIP() << "CARAVAN_REFERENCE_DATA does not have " << (relative); \
  }                                                                        \
  const std::string& name = *name##_or

#endif  // CARAVAN_TESTS_SUPPORT_REFERENCE_DATA_H_
