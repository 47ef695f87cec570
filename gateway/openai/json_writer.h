// Writes JSON in one pass into a string: keys in the order of the calls, no
// blanks, floats in shortest round-trip form. Bytes of a response are a pure
// function of its fields, which is what golden tests compare.
#ifndef CARAVAN_GATEWAY_OPENAI_JSON_WRITER_H_
#define CARAVAN_GATEWAY_OPENAI_JSON_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace caravan::gateway::openai {

// Not thread-safe. The caller pairs Begin and End.
class JsonWriter {
 public:
  JsonWriter& BeginObject();
  JsonWriter& EndObject();
  JsonWriter& BeginArray();
  JsonWriter& EndArray();

  JsonWriter& Key(std::string_view key);

  JsonWriter& String(std::string_view value);  // valid UTF-8
  JsonWriter& Integer(int64_t value);
  JsonWriter& Unsigned(uint64_t value);
  // Shortest decimal that reads back as the same float. JSON has no
  // infinities and no NaN: what is not finite becomes -9999.
  JsonWriter& Float(float value);
  JsonWriter& Bool(bool value);
  JsonWriter& Null();
  JsonWriter& Raw(std::string_view json);  // one whole value

  const std::string& text() const { return text_; }
  std::string Take();

 private:
  void Separate();

  std::string text_;
  bool needs_comma_ = false;
};

// `value` between quotes with what JSON asks to be escaped.
void AppendJsonString(std::string_view value, std::string& out);

}  // namespace caravan::gateway::openai

#endif  // CARAVAN_GATEWAY_OPENAI_JSON_WRITER_H_
