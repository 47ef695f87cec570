#include "common/metrics/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <string>

#include "common/metrics/names.h"
#include "common/strings.h"
#include "tests/support/status_matchers.h"

namespace caravan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

namespace asio = boost::asio;

const MetricFamily kRequests = {"caravan_test_requests_total", "Requests."};
const MetricFamily kSeconds = {
    "caravan_test_wait_seconds", "Waiting.", {0.1, 1}};

// The whole answer to GET /metrics.
std::string Scrape(int port) {
  asio::io_context context;
  asio::ip::tcp::socket socket(context);
  socket.connect({asio::ip::address_v4::loopback(),
                  static_cast<asio::ip::port_type>(port)});
  asio::write(socket, asio::buffer(std::string(
                          "GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
                          "Connection: close\r\n\r\n")));
  std::string answer;
  boost::system::error_code error;
  asio::read(socket, asio::dynamic_buffer(answer), error);
  return answer;
}

TEST(MetricsRegistryTest, SameFamilyAndLabelsAreOneHandle) {
  MetricsRegistry registry;
  Counter* const first = registry.MakeCounter(kRequests, {{"outcome", "ok"}});
  EXPECT_EQ(first, registry.MakeCounter(kRequests, {{"outcome", "ok"}}));
  EXPECT_NE(first, registry.MakeCounter(kRequests, {{"outcome", "bad"}}));
}

TEST(MetricsRegistryTest, SerializesCountersGaugesAndHistograms) {
  MetricsRegistry registry;
  registry.MakeCounter(kRequests, {{"outcome", "ok"}})->Increment(3);
  registry.MakeGauge(metrics::kRouterWorkers, {{"state", "ready"}})->Set(2);
  registry.MakeGauge(metrics::kRouterWorkers, {{"state", "ready"}})->Add(-1);
  registry.MakeHistogram(kSeconds, {})->Observe(0.5);
  EXPECT_THAT(registry.Serialize(),
              AllOf(HasSubstr("# TYPE caravan_test_requests_total counter"),
                    HasSubstr("caravan_test_requests_total{outcome=\"ok\"} 3"),
                    HasSubstr("caravan_router_workers{state=\"ready\"} 1"),
                    HasSubstr("caravan_test_wait_seconds_bucket{le=\"0.1\"} 0"),
                    HasSubstr("caravan_test_wait_seconds_bucket{le=\"1\"} 1"),
                    HasSubstr("caravan_test_wait_seconds_sum 0.5")));
}

TEST(MetricsRegistryTest, ServesOnAFreePort) {
  MetricsRegistry registry;
  registry.MakeCounter(kRequests, {})->Increment();
  ASSERT_OK_AND_ASSIGN(const int port, registry.Expose("127.0.0.1", 0));
  EXPECT_GT(port, 0);
  EXPECT_THAT(Scrape(port), AllOf(HasSubstr("200 OK"),
                                  HasSubstr("caravan_test_requests_total 1")));
}

TEST(MetricsRegistryTest, ATakenPortIsAnErrorThatNamesIt) {
  MetricsRegistry first;
  ASSERT_OK_AND_ASSIGN(const int port, first.Expose("127.0.0.1", 0));
  MetricsRegistry second;
  EXPECT_THAT(second.Expose("127.0.0.1", port),
              testing::HasReason(Reason::kInvalidField,
                                 HasSubstr(StrCat("127.0.0.1:", port))));
}

TEST(MetricsRegistryDeathTest, ANameThatPrometheusRefusesIsAMistakeOfOurs) {
  MetricsRegistry registry;
  EXPECT_DEATH(registry.MakeCounter({"no spaces allowed", "x"}, {}),
               "metric_family_refused");
}

}  // namespace
}  // namespace caravan
