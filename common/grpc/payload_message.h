// Messages with one big bytes field that is copied once on either side: from
// where it is computed to the buffer that is sent, and from the buffer that
// came to where it is computed on. On the wire they are what protobuf makes of
// them, so that either side may be any client of the proto.
//
// Thread-safe: pure functions and values.
#ifndef CARAVAN_COMMON_GRPC_PAYLOAD_MESSAGE_H_
#define CARAVAN_COMMON_GRPC_PAYLOAD_MESSAGE_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caravan {

// The payload is field `inner` (bytes) of the message in field `outer`.
struct PayloadField {
  int outer = 0;
  int inner = 0;
};

// Bytes in a received buffer, which lives as long as they do.
class ReceivedBytes {
 public:
  ReceivedBytes() = default;
  size_t size() const { return size_; }
  // Copies size() bytes.
  void CopyTo(std::byte* target) const;

 private:
  friend class PayloadReader;
  void Append(const grpc::Slice& slice, size_t offset, size_t size);

  struct Part {
    grpc::Slice slice;
    size_t offset = 0;
    size_t size = 0;
  };
  std::vector<Part> parts_;
  size_t size_ = 0;
};

// `message`, as protobuf serializes it.
grpc::ByteBuffer ToByteBuffer(const google::protobuf::MessageLite& message);

// `message`, which has an `outer` and no payload, with `payload` added to it.
grpc::ByteBuffer ToByteBuffer(const google::protobuf::MessageLite& message,
                              PayloadField field,
                              std::span<const std::byte> payload);

// Parses everything but the payload into `message`; the bytes of the last
// payload, if any. kInvalidArgument when it is no such message.
absl::StatusOr<ReceivedBytes> FromByteBuffer(
    const grpc::ByteBuffer& buffer, PayloadField field,
    google::protobuf::MessageLite* message);

// A message without one.
absl::Status FromByteBuffer(const grpc::ByteBuffer& buffer,
                            google::protobuf::MessageLite* message);

}  // namespace caravan

#endif  // CARAVAN_COMMON_GRPC_PAYLOAD_MESSAGE_H_
