// A throw-away certificate for 127.0.0.1, its own authority.
#ifndef CARAVAN_TESTS_COMMON_GRPC_TEST_CERTIFICATE_H_
#define CARAVAN_TESTS_COMMON_GRPC_TEST_CERTIFICATE_H_

#include "absl/status/statusor.h"
#include "common/grpc/server.h"

namespace caravan::testing {

// Writes certificate and key below the test's temporary folder.
absl::StatusOr<TlsOptions> MakeTestCertificate();

}  // namespace caravan::testing

#endif  // CARAVAN_TESTS_COMMON_GRPC_TEST_CERTIFICATE_H_
