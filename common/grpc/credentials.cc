#include "common/grpc/credentials.h"

#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "common/status/errors.h"
#include "common/status/status_macros.h"

namespace caravan {
namespace {

// Contents of the three files; empty where none is named.
struct TlsTexts {
  std::string certificate;
  std::string key;
  std::string ca;
};

absl::StatusOr<std::string> ReadPem(std::string_view flag,
                                    const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  if (!file || text.empty()) {
    return FieldError(flag, "a readable PEM file", path);
  }
  return text;
}

absl::StatusOr<TlsTexts> ReadTexts(const TlsOptions& tls) {
  if (tls.certificate_file.empty() != tls.key_file.empty()) {
    return FieldError("--tls-cert", "given together with --tls-key",
                      "only one of them");
  }
  TlsTexts texts;
  CARAVAN_ASSIGN_OR_RETURN(texts.certificate,
                           ReadPem("--tls-cert", tls.certificate_file));
  CARAVAN_ASSIGN_OR_RETURN(texts.key, ReadPem("--tls-key", tls.key_file));
  CARAVAN_ASSIGN_OR_RETURN(texts.ca, ReadPem("--tls-ca", tls.ca_file));
  return texts;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const TlsOptions& tls) {
  CARAVAN_ASSIGN_OR_RETURN(const TlsTexts texts, ReadTexts(tls));
  if (texts.certificate.empty()) {
    if (!texts.ca.empty()) {
      return FieldError("--tls-ca", "given together with --tls-cert",
                        "--tls-ca alone");
    }
    return grpc::InsecureServerCredentials();
  }
  grpc::SslServerCredentialsOptions options(
      texts.ca.empty()
          ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
          : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = texts.ca;
  options.pem_key_cert_pairs.push_back({texts.key, texts.certificate});
  return grpc::SslServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>>
MakeChannelCredentials(const TlsOptions& tls) {
  CARAVAN_ASSIGN_OR_RETURN(const TlsTexts texts, ReadTexts(tls));
  if (texts.certificate.empty() && texts.ca.empty()) {
    return grpc::InsecureChannelCredentials();
  }
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = texts.ca;
  options.pem_private_key = texts.key;
  options.pem_cert_chain = texts.certificate;
  return grpc::SslCredentials(options);
}

}  // namespace caravan
