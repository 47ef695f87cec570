#include "tests/gateway/fakes/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

namespace caravan::gateway::testing {

HttpClient::HttpClient(int port) {
  socket_ = ::socket(AF_INET, SOCK_STREAM, 0);
  timeval timeout = {20, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<sockaddr*>(&address),
                sizeof(address)) != 0) {
    Close();
  }
}

HttpClient::~HttpClient() { Close(); }

void HttpClient::Close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

bool HttpClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent =
        ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool HttpClient::ReadMore() {
  char bytes[65536];
  const ssize_t size = ::recv(socket_, bytes, sizeof(bytes), 0);
  if (size <= 0) return false;
  buffer_.append(bytes, static_cast<size_t>(size));
  return true;
}

std::optional<std::string> HttpClient::ReadUntil(std::string_view mark) {
  for (;;) {
    const size_t at = buffer_.find(mark);
    if (at != std::string::npos) {
      std::string part = buffer_.substr(0, at);
      buffer_.erase(0, at + mark.size());
      return part;
    }
    if (!ReadMore()) return std::nullopt;
  }
}

HttpAnswer HttpClient::ReadHead() {
  HttpAnswer answer;
  const auto head = ReadUntil("\r\n\r\n");
  if (!head || head->size() < 12) return answer;
  answer.status = std::atoi(head->c_str() + 9);
  for (size_t at = head->find("\r\n"); at != std::string::npos;
       at = head->find("\r\n", at + 2)) {
    const size_t end = std::min(head->find("\r\n", at + 2), head->size());
    const std::string line = head->substr(at + 2, end - at - 2);
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    std::string name = line.substr(0, colon);
    std::transform(name.begin(), name.end(), name.begin(), ::tolower);
    answer.headers[name] = line.substr(colon + 2);
  }
  return answer;
}

HttpAnswer HttpClient::Receive() {
  HttpAnswer answer = ReadHead();
  if (answer.status == 100) answer = ReadHead();
  const size_t size =
      std::strtoul(answer.headers["content-length"].c_str(), nullptr, 10);
  while (buffer_.size() < size && ReadMore()) {
  }
  answer.body = buffer_.substr(0, size);
  buffer_.erase(0, size);
  return answer;
}

HttpAnswer HttpClient::Get(const std::string& path,
                           const std::string& headers) {
  Send("GET " + path + " HTTP/1.1\r\nHost: test\r\n" + headers + "\r\n");
  return Receive();
}

HttpAnswer HttpClient::Post(const std::string& path, const std::string& body,
                            const std::string& headers) {
  Send("POST " + path +
       " HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n" +
       headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
       body);
  return Receive();
}

HttpAnswer HttpClient::PostStream(const std::string& path,
                                  const std::string& body,
                                  const std::string& headers) {
  Send("POST " + path + " HTTP/1.1\r\nHost: test\r\n" + headers +
       "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  body_over_ = false;
  return ReadHead();
}

bool HttpClient::ReadChunk() {
  const auto size_line = ReadUntil("\r\n");
  if (!size_line) return false;
  const size_t size = std::strtoul(size_line->c_str(), nullptr, 16);
  while (buffer_.size() < size + 2) {
    if (!ReadMore()) return false;
  }
  events_ += buffer_.substr(0, size);
  buffer_.erase(0, size + 2);
  return size > 0;
}

std::optional<std::string> HttpClient::NextEvent() {
  for (;;) {
    const size_t end = events_.find("\n\n");
    if (end != std::string::npos) {
      std::string event = events_.substr(0, end);
      events_.erase(0, end + 2);
      if (event.starts_with("id: ")) {
        const size_t line = event.find('\n');
        last_event_id_ = event.substr(4, line - 4);
        event.erase(0, line + 1);
      }
      return event.starts_with("data: ") ? event.substr(6) : event;
    }
    if (body_over_) return std::nullopt;
    body_over_ = !ReadChunk();
  }
}

}  // namespace caravan::gateway::testing
