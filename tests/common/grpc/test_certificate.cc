#include "tests/common/grpc/test_certificate.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

#include "common/strings.h"

namespace caravan::testing {
namespace {

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using File = std::unique_ptr<std::FILE, decltype(&std::fclose)>;

constexpr long kOneDaySeconds = 24 * 60 * 60;

void AddExtension(X509* certificate, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension =
      X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

Certificate SelfSigned(EVP_PKEY* key) {
  Certificate certificate(X509_new(), &X509_free);
  X509_set_version(certificate.get(), X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -kOneDaySeconds);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), kOneDaySeconds);
  X509_set_pubkey(certificate.get(), key);
  X509_NAME* const name = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(
      name, "CN", MBSTRING_ASC,
      reinterpret_cast<const unsigned char*>("caravan test"), -1, -1, 0);
  X509_set_issuer_name(certificate.get(), name);
  AddExtension(certificate.get(), NID_basic_constraints, "critical,CA:TRUE");
  AddExtension(certificate.get(), NID_subject_alt_name, "IP:127.0.0.1");
  X509_sign(certificate.get(), key, EVP_sha256());
  return certificate;
}

}  // namespace

absl::StatusOr<TlsOptions> MakeTestCertificate() {
  const Key key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  if (!key) return absl::InternalError("OpenSSL made no key");
  const Certificate certificate = SelfSigned(key.get());
  const std::string stem =
      StrCat(::testing::TempDir(), "caravan_test_", getpid());
  const TlsOptions tls = {.certificate_file = stem + "_cert.pem",
                          .key_file = stem + "_key.pem",
                          .ca_file = stem + "_cert.pem"};
  const File cert_file(std::fopen(tls.certificate_file.c_str(), "w"),
                       &std::fclose);
  const File key_file(std::fopen(tls.key_file.c_str(), "w"), &std::fclose);
  if (!cert_file || !key_file ||
      PEM_write_X509(cert_file.get(), certificate.get()) != 1 ||
      PEM_write_PrivateKey(key_file.get(), key.get(), nullptr, nullptr, 0,
                           nullptr, nullptr) != 1) {
    return absl::InternalError(StrCat("cannot write ", stem));
  }
  return tls;
}

}  // namespace caravan::testing
