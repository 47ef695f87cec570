#include "tests/property/tokenizers.h"

#include <gtest/gtest.h>

#include <utility>

#include "common/text/incremental_decoder.h"
#include "tests/common/text/model_directory.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::text {
namespace {

void AddLoaded(const std::string& path,
               std::vector<std::unique_ptr<Tokenizer>>* all) {
  auto tokenizer = Tokenizer::LoadDirectory(path);
  ASSERT_OK(tokenizer);
  all->push_back(*std::move(tokenizer));
}

}  // namespace

std::vector<std::unique_ptr<Tokenizer>> AllTokenizers() {
  std::vector<std::unique_ptr<Tokenizer>> all;
  AddLoaded(testing::RepositoryPath("deploy/demo-model"), &all);
  for (const char* const name : {"llama-2", "llama-3"}) {
    const auto source =
        testing::ReferencePath(std::string("tokenizers/") + name);
    if (!source) continue;
    for (const char* const file : {"tokenizer.model", "tokenizer.json"}) {
      const ModelDirectory directory;
      directory.Copy(*source + "/" + file, file);
      AddLoaded(directory.path(), &all);
    }
  }
  return all;
}

std::string RoundTrip(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.Encode(text, {.add_special_tokens = false});
  EXPECT_OK(ids);
  if (!ids.ok()) return "";
  return Decode(tokenizer.vocabulary(), *ids, /*skip_special_tokens=*/false);
}

}  // namespace caravan::text
