// How the CLI reaches a process of the suite.
#ifndef CARAVAN_SERVICES_CLI_CLIENT_OPTIONS_H_
#define CARAVAN_SERVICES_CLI_CLIENT_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <string>

namespace caravan::cli {

struct ClientOptions {
  std::string address;   // HOST:PORT
  std::string api_key;   // sent as "authorization: Bearer KEY"; empty: none
  double timeout_s = 0;  // of one call; 0: none
  std::string tls_certificate_file;
  std::string tls_key_file;
  std::string tls_ca_file;
};

// Adds `flag` (such as "--gateway") with a default, and the flags of keys,
// time and TLS.
inline void AddClientFlags(CLI::App& app, ClientOptions& options,
                           const std::string& flag,
                           const std::string& default_address) {
  options.address = default_address;
  app.add_option(flag, options.address, "HOST:PORT")->capture_default_str();
  app.add_option("--api-key", options.api_key, "API key")
      ->envname("CARAVAN_API_KEY");
  app.add_option("--timeout", options.timeout_s, "Seconds (0: none)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--tls-cert", options.tls_certificate_file, "PEM file");
  app.add_option("--tls-key", options.tls_key_file, "PEM file");
  app.add_option("--tls-ca", options.tls_ca_file, "PEM file");
}

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_CLIENT_OPTIONS_H_
