// Tokenizer files small enough to be written out in a test.
#ifndef CARAVAN_TESTS_COMMON_TEXT_SMALL_MODELS_H_
#define CARAVAN_TESTS_COMMON_TEXT_SMALL_MODELS_H_

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::text {

// A SentencePiece model in the protobuf wire format.
struct SentencePieceFile {
  struct Piece {
    std::string text;
    float score;
    int type;
  };
  std::vector<Piece> pieces;
  int model_type = 2;
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = false;
  std::string charsmap;

  void Add(std::string_view text, float score, int type = 1) {
    pieces.push_back({std::string(text), score, type});
  }

  // <unk>, <s>, </s> and the 256 bytes.
  void AddStandardPieces() {
    Add("<unk>", 0, 2);
    Add("<s>", 0, 3);
    Add("</s>", 0, 3);
    for (int byte = 0; byte < 256; ++byte) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", byte);
      Add(name, 0, 6);
    }
  }

  static std::string Varint(uint64_t value) {
    std::string out;
    for (; value >= 0x80; value >>= 7) {
      out += static_cast<char>(value | 0x80);
    }
    out += static_cast<char>(value);
    return out;
  }
  static std::string Field(int number, uint64_t value) {
    return Varint(static_cast<uint64_t>(number) << 3) + Varint(value);
  }
  static std::string Field(int number, std::string_view bytes) {
    return Varint(static_cast<uint64_t>(number) << 3 | 2) +
           Varint(bytes.size()) + std::string(bytes);
  }
  static std::string Field(int number, float value) {
    std::string out = Varint(static_cast<uint64_t>(number) << 3 | 5);
    char bytes[4];
    std::memcpy(bytes, &value, 4);
    return out.append(bytes, 4);
  }

  std::string Serialize() const {
    std::string out;
    for (const Piece& piece : pieces) {
      out += Field(1, Field(1, piece.text) + Field(2, piece.score) +
                          Field(3, static_cast<uint64_t>(piece.type)));
    }
    out += Field(2, Field(3, static_cast<uint64_t>(model_type)) +
                        Field(35, uint64_t{byte_fallback}));
    out += Field(3, Field(2, charsmap) + Field(3, uint64_t{add_dummy_prefix}) +
                        Field(4, uint64_t{remove_extra_whitespaces}));
    return out;
  }
};

}  // namespace caravan::text

#endif  // CARAVAN_TESTS_COMMON_TEXT_SMALL_MODELS_H_
