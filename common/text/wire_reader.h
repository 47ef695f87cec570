// Reads the protobuf wire format from untrusted bytes without protobuf.
#ifndef CARAVAN_COMMON_TEXT_WIRE_READER_H_
#define CARAVAN_COMMON_TEXT_WIRE_READER_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace caravan::text {

// Walks over the fields of one message. The bytes must outlive it.
//
// Not thread-safe.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : rest_(bytes) {}

  // Reads the next field. False at the end, and where the bytes are not a
  // message (then ok() is false).
  bool Next();

  bool ok() const { return ok_; }
  // Bytes that are not yet read.
  size_t remaining() const { return rest_.size(); }

  // Of the field that Next read. A value of another wire type reads as zero or
  // empty.
  uint32_t field() const { return field_; }
  uint64_t varint() const { return varint_; }
  float fixed32() const;
  std::string_view bytes() const { return bytes_; }

 private:
  bool ReadVarint(uint64_t* value);
  bool Take(size_t size, std::string_view* out);
  bool ReadField();

  std::string_view rest_;
  bool ok_ = true;
  uint32_t field_ = 0;
  uint64_t varint_ = 0;
  uint32_t fixed32_ = 0;
  std::string_view bytes_;
};

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_WIRE_READER_H_
