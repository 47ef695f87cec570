#include "common/grpc/payload_message.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <cstring>
#include <string>

namespace caravan {
namespace {

namespace io = google::protobuf::io;

// The three low bits of a tag.
enum WireType : uint32_t {
  kVarint = 0,
  kFixed64 = 1,
  kLengthDelimited = 2,
  kFixed32 = 5,
};

constexpr uint32_t TagOf(int field, WireType type) {
  return static_cast<uint32_t>(field) << 3 | type;
}

absl::Status Malformed() {
  return absl::InvalidArgumentError("the message is not one of its proto");
}

grpc::Slice SliceOf(const google::protobuf::MessageLite& message) {
  grpc::Slice slice(message.ByteSizeLong());
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return slice;
}

// The heads of `outer` and `inner` around so many bytes.
std::string HeadsOf(PayloadField field, size_t size) {
  const auto bytes = static_cast<uint32_t>(size);
  const uint32_t inner_tag = TagOf(field.inner, kLengthDelimited);
  const auto inner_size =
      static_cast<uint32_t>(io::CodedOutputStream::VarintSize32(inner_tag) +
                            io::CodedOutputStream::VarintSize32(bytes) + bytes);
  std::string heads;
  io::StringOutputStream stream(&heads);
  io::CodedOutputStream output(&stream);
  output.WriteVarint32(TagOf(field.outer, kLengthDelimited));
  output.WriteVarint32(inner_size);
  output.WriteVarint32(inner_tag);
  output.WriteVarint32(bytes);
  output.Trim();
  return heads;
}

// Copies the value of a field; false where there is none.
bool CopyValue(uint32_t tag, io::CodedInputStream& input,
               io::CodedOutputStream& output) {
  output.WriteVarint32(tag);
  uint64_t value = 0;
  uint32_t value32 = 0;
  switch (tag & 7) {
    case kVarint:
      if (!input.ReadVarint64(&value)) return false;
      output.WriteVarint64(value);
      return true;
    case kFixed64:
      if (!input.ReadLittleEndian64(&value)) return false;
      output.WriteLittleEndian64(value);
      return true;
    case kFixed32:
      if (!input.ReadLittleEndian32(&value32)) return false;
      output.WriteLittleEndian32(value32);
      return true;
    case kLengthDelimited: {
      std::string bytes;
      if (!input.ReadVarint32(&value32) ||
          !input.ReadString(&bytes, static_cast<int>(value32))) {
        return false;
      }
      output.WriteVarint32(value32);
      output.WriteString(bytes);
      return true;
    }
    default:
      return false;
  }
}

}  // namespace

void ReceivedBytes::Append(const grpc::Slice& slice, size_t offset,
                           size_t size) {
  parts_.push_back({slice, offset, size});
  size_ += size;
}

void ReceivedBytes::CopyTo(std::byte* target) const {
  for (const Part& part : parts_) {
    std::memcpy(target, part.slice.begin() + part.offset, part.size);
    target += part.size;
  }
}

// Walks over the fields of a message and of its `outer`: what is not payload
// is copied, to be parsed.
class PayloadReader {
 public:
  PayloadReader(const grpc::ByteBuffer& buffer, PayloadField field)
      : buffer_(buffer), field_(field) {}

  // False where the bytes are no message.
  bool Read() {
    grpc::ByteBuffer copy = buffer_;  // the reader takes one that is its own
    grpc::ProtoBufferReader reader(&copy);
    if (!reader.status().ok()) return false;
    io::CodedInputStream input(&reader);
    input.SetTotalBytesLimit(INT_MAX);
    io::StringOutputStream stream(&rest_);
    io::CodedOutputStream rest(&stream);
    const uint32_t outer = TagOf(field_.outer, kLengthDelimited);
    while (const uint32_t tag = input.ReadTag()) {
      const bool good =
          tag == outer ? ReadOuter(input, rest) : CopyValue(tag, input, rest);
      if (!good) return false;
    }
    return input.ConsumedEntireMessage();
  }

  const std::string& rest() const { return rest_; }

  // The payload within the buffer's slices.
  absl::StatusOr<ReceivedBytes> Payload() const {
    std::vector<grpc::Slice> slices;
    if (!buffer_.Dump(&slices).ok()) return Malformed();
    ReceivedBytes payload;
    size_t begin = 0;  // of the slice
    for (const grpc::Slice& slice : slices) {
      const size_t first = std::max(begin, payload_begin_);
      const size_t last = std::min(begin + slice.size(), payload_end_);
      if (first < last) payload.Append(slice, first - begin, last - first);
      begin += slice.size();
    }
    return payload;
  }

 private:
  bool ReadOuter(io::CodedInputStream& input, io::CodedOutputStream& rest) {
    uint32_t size = 0;
    if (!input.ReadVarint32(&size) || size > INT_MAX) return false;
    const auto limit = input.PushLimit(static_cast<int>(size));
    std::string fields;
    io::StringOutputStream stream(&fields);
    {
      io::CodedOutputStream output(&stream);
      const uint32_t inner = TagOf(field_.inner, kLengthDelimited);
      while (const uint32_t tag = input.ReadTag()) {
        const bool good =
            tag == inner ? SkipPayload(input) : CopyValue(tag, input, output);
        if (!good) return false;
      }
    }
    if (!input.ConsumedEntireMessage() || input.BytesUntilLimit() != 0) {
      return false;
    }
    input.PopLimit(limit);
    rest.WriteVarint32(TagOf(field_.outer, kLengthDelimited));
    rest.WriteVarint32(static_cast<uint32_t>(fields.size()));
    rest.WriteString(fields);
    return true;
  }

  bool SkipPayload(io::CodedInputStream& input) {
    uint32_t size = 0;
    if (!input.ReadVarint32(&size) || size > INT_MAX) return false;
    payload_begin_ = static_cast<size_t>(input.CurrentPosition());
    payload_end_ = payload_begin_ + size;
    return input.Skip(static_cast<int>(size));
  }

  const grpc::ByteBuffer& buffer_;
  const PayloadField field_;
  std::string rest_;
  size_t payload_begin_ = 0;
  size_t payload_end_ = 0;
};

grpc::ByteBuffer ToByteBuffer(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice = SliceOf(message);
  return grpc::ByteBuffer(&slice, 1);
}

grpc::ByteBuffer ToByteBuffer(const google::protobuf::MessageLite& message,
                              PayloadField field,
                              std::span<const std::byte> payload) {
  const grpc::Slice slices[] = {SliceOf(message),
                                grpc::Slice(HeadsOf(field, payload.size())),
                                grpc::Slice(payload.data(), payload.size())};
  return grpc::ByteBuffer(slices, 3);
}

absl::StatusOr<ReceivedBytes> FromByteBuffer(
    const grpc::ByteBuffer& buffer, PayloadField field,
    google::protobuf::MessageLite* message) {
  PayloadReader reader(buffer, field);
  if (!reader.Read() || !message->ParseFromString(reader.rest())) {
    return Malformed();
  }
  return reader.Payload();
}

absl::Status FromByteBuffer(const grpc::ByteBuffer& buffer,
                            google::protobuf::MessageLite* message) {
  grpc::ByteBuffer copy = buffer;  // the reader takes one that is its own
  grpc::ProtoBufferReader reader(&copy);
  if (!reader.status().ok() || !message->ParseFromZeroCopyStream(&reader)) {
    return Malformed();
  }
  return absl::OkStatus();
}

}  // namespace caravan
