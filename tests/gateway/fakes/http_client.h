// A blocking HTTP client that shows every byte.
#ifndef CARAVAN_TESTS_GATEWAY_FAKES_HTTP_CLIENT_H_
#define CARAVAN_TESTS_GATEWAY_FAKES_HTTP_CLIENT_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::gateway::testing {

struct HttpAnswer {
  int status = 0;                              // 0: the connection ended
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// One connection. Reads give up after 20 seconds. Not thread-safe.
class HttpClient {
 public:
  explicit HttpClient(int port);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Sends raw bytes; false when the peer has closed.
  bool Send(std::string_view bytes);
  HttpAnswer Receive();
  HttpAnswer Get(const std::string& path, const std::string& headers = "");
  HttpAnswer Post(const std::string& path, const std::string& body,
                  const std::string& headers = "");

  // For event streams: sends, reads the head, then event by event. The data of
  // the next event, or nothing at the end of the body.
  HttpAnswer PostStream(const std::string& path, const std::string& body,
                        const std::string& headers = "");
  std::optional<std::string> NextEvent();
  // The id of the last event that had one.
  const std::string& last_event_id() const { return last_event_id_; }

  // Ends the connection without ceremony.
  void Close();

 private:
  bool ReadMore();
  std::optional<std::string> ReadUntil(std::string_view mark);
  HttpAnswer ReadHead();
  bool ReadChunk();

  int socket_ = -1;
  std::string buffer_;
  std::string events_;
  std::string last_event_id_;
  bool body_over_ = false;
};

}  // namespace caravan::gateway::testing

#endif  // CARAVAN_TESTS_GATEWAY_FAKES_HTTP_CLIENT_H_
