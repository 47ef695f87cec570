#include "services/cli/health_client.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <vector>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "services/cli/unary_client.h"

namespace caravan::cli {
namespace {

constexpr char kMethod[] = "/grpc.health.v1.Health/Check";

// HealthCheckResponse has one field, the enum `status` = 1. A message without
// it stands for UNKNOWN.
absl::StatusOr<std::string> DecodeStatus(const std::string& message) {
  if (message.empty()) return std::string("UNKNOWN");
  if (message.size() == 2 && message[0] == 0x08) {
    if (message[1] == 1) return std::string("SERVING");
    if (message[1] == 2) return std::string("NOT_SERVING");
    return std::string("UNKNOWN");
  }
  return MakeError(Reason::kInternal, "the health answer is not readable");
}

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

}  // namespace

absl::StatusOr<std::string> CheckHealth(const ClientOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const auto channel, OpenChannel(options));
  grpc::GenericStub stub(channel);
  const grpc::Slice nothing;  // HealthCheckRequest for the whole server
  const grpc::ByteBuffer request(&nothing, 1);
  CARAVAN_ASSIGN_OR_RETURN(
      const grpc::ByteBuffer response,
      CallAndWait<grpc::ByteBuffer>(
          options, [&](auto* context, auto* answer, auto done) {
            stub.UnaryCall(context, kMethod, grpc::StubOptions(), &request,
                           answer, done);
          }));
  return DecodeStatus(BytesOf(response));
}

}  // namespace caravan::cli
