// A gateway before a fleet of fakes.
#ifndef CARAVAN_TESTS_GATEWAY_GATEWAY_FIXTURE_H_
#define CARAVAN_TESTS_GATEWAY_GATEWAY_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/json.h"
#include "gateway/gateway.h"
#include "tests/gateway/fakes/fake_fleet.h"
#include "tests/gateway/fakes/http_client.h"
#include "tests/support/status_matchers.h"

namespace caravan::gateway::testing {

using Json = nlohmann::json;

class GatewayTest : public ::testing::Test {
 protected:
  GatewayTest() : first_("worker-1") {
    fleet_.Add(first_);
    options_.http_port = 0;
    options_.grpc_port = 0;
    options_.metrics_port = 0;
    options_.threads = 2;
    options_.routers = {fleet_.router_address()};
    options_.tokenizers = {fleet_.tokenizer_address()};
    options_.resume_patience_s = 5;
  }

  // Called once, after the test has changed options_.
  void Start() {
    auto gateway = Gateway::Start(options_);
    ASSERT_OK(gateway);
    gateway_ = *std::move(gateway);
  }
  HttpClient Connect() { return HttpClient(gateway_->http_port()); }

  static std::string Completion(const std::string& fields) {
    return R"({"model":"fake","prompt":"hi","seed":7)" +
           (fields.empty() ? "" : "," + fields) + "}";
  }
  // The JSON of a body; an empty object where it is none.
  static Json Parse(const std::string& body) {
    Json json = ParseJson(body);
    EXPECT_FALSE(json.is_discarded()) << body;
    return json.is_discarded() ? Json::object() : json;
  }
  // The events up to the end of the stream.
  static std::vector<std::string> Drain(HttpClient& client) {
    std::vector<std::string> events;
    while (auto event = client.NextEvent()) events.push_back(*event);
    return events;
  }
  // The text of all completion chunks.
  static std::string TextOf(const std::vector<std::string>& events) {
    std::string text;
    for (const std::string& event : events) {
      if (event == "[DONE]") continue;
      const Json json = Parse(event);
      if (!json.contains("choices")) continue;
      for (const Json& choice : json["choices"]) {
        text += choice.value("text", "");
      }
    }
    return text;
  }

  FakeFleet fleet_;
  FakeWorker first_;
  GatewayOptions options_;
  std::unique_ptr<Gateway> gateway_;
};

}  // namespace caravan::gateway::testing

#endif  // CARAVAN_TESTS_GATEWAY_GATEWAY_FIXTURE_H_
