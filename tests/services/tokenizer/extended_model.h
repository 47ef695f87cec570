// The Llama-2 vocabulary with further pieces, as Code Llama's has.
#ifndef CARAVAN_TESTS_SERVICES_TOKENIZER_EXTENDED_MODEL_H_
#define CARAVAN_TESTS_SERVICES_TOKENIZER_EXTENDED_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "tests/common/text/model_directory.h"
#include "tests/support/reference_data.h"

namespace caravan::tokenizer {

// One SentencePiece entry of a ModelProto: repeated fields may be appended to
// the file as they are.
inline std::string PieceEntry(const std::string& piece, char type) {
  // score = 0 (field 2, fixed32) and type (field 3).
  std::string entry = "\x0A" + std::string(1, static_cast<char>(piece.size()));
  entry += piece + std::string("\x15\0\0\0\0\x18", 6) + type;
  return "\x0A" + std::string(1, static_cast<char>(entry.size())) + entry;
}

// The sixteen pieces after Llama-2's 32,000, in Code Llama's order.
inline std::vector<std::string> CodeLlamaPieces() {
  std::vector<std::string> pieces;
  for (const std::string name : {"<SU", "<SUF", "<PRE", "<M", "<MID", "<E",
                                 "<EOT", "<PRE>", "<SUF>", "<MID>", "<EOT>"}) {
    pieces.push_back("\xE2\x96\x81" + name);
  }
  for (int i = 0; i < 5; ++i) pieces.push_back(pieces.back() + "<EOT>");
  return pieces;
}

// A directory with that tokenizer.model; `pieces` get the ids from 32000.
// Names in angle brackets become control pieces; others are ordinary ones.
// Null where the reference data is absent.
inline std::unique_ptr<text::ModelDirectory> ExtendedLlama2(
    const std::vector<std::string>& pieces) {
  const auto file =
      testing::ReferencePath("tokenizers/llama-2/tokenizer.model");
  if (!file) return nullptr;
  std::string model = testing::ReadFile(*file);
  for (const std::string& piece : pieces) {
    model += PieceEntry(piece, piece.front() == '<' ? 3 : 1);
  }
  auto directory = std::make_unique<text::ModelDirectory>();
  directory->Write("tokenizer.model", model);
  return directory;
}

}  // namespace caravan::tokenizer

#endif  // CARAVAN_TESTS_SERVICES_TOKENIZER_EXTENDED_MODEL_H_
