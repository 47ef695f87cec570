// A model directory of a test's own.
#ifndef CARAVAN_TESTS_COMMON_TEXT_MODEL_DIRECTORY_H_
#define CARAVAN_TESTS_COMMON_TEXT_MODEL_DIRECTORY_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace caravan::text {

// Removed with the object. Not thread-safe.
class ModelDirectory {
 public:
  ModelDirectory() {
    std::string pattern = ::testing::TempDir() + "caravan_model_XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~ModelDirectory() { std::filesystem::remove_all(path_); }
  ModelDirectory(const ModelDirectory&) = delete;
  ModelDirectory& operator=(const ModelDirectory&) = delete;

  const std::string& path() const { return path_; }

  void Write(const std::string& name, std::string_view content) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << content;
  }
  void Copy(const std::string& from, const std::string& name) const {
    std::filesystem::copy_file(from, path_ + "/" + name);
  }

 private:
  std::string path_;
};

}  // namespace caravan::text

#endif  // CARAVAN_TESTS_COMMON_TEXT_MODEL_DIRECTORY_H_
