// A gateway's side of a session, blocking, for tests.
#ifndef CARAVAN_TESTS_WORKER_SERVER_TEST_SESSION_H_
#define CARAVAN_TESTS_WORKER_SERVER_TEST_SESSION_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "caravan/v1/worker.grpc.pb.h"
#include "common/status/grpc_status.h"

namespace caravan::testing {

inline std::unique_ptr<v1::WorkerService::Stub> ConnectWorker(int port) {
  return v1::WorkerService::NewStub(grpc::CreateChannel(
      "127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
}

// What a session has told of one handle.
struct HandleLog {
  std::map<int32_t, std::vector<int32_t>> tokens;  // by choice
  std::vector<v1::ChoiceFinish> finishes;
  std::optional<absl::Status> error;
  int32_t prompt_records = 0;
};

// Not thread-safe. Everything ends within 20 s.
class TestSession {
 public:
  explicit TestSession(v1::WorkerService::Stub& stub) {
    context_.set_deadline(std::chrono::system_clock::now() +
                          std::chrono::seconds(20));
    stream_ = stub.Session(&context_);
  }
  ~TestSession() {
    context_.TryCancel();
    if (!finished_) End().IgnoreError();
  }

  bool SendHello(int least = 1, int greatest = 1) {
    v1::SessionRequest request;
    request.mutable_hello()->set_least_revision(least);
    request.mutable_hello()->set_greatest_revision(greatest);
    request.mutable_hello()->set_sender_id("test");
    return stream_->Write(request);
  }
  bool Send(const v1::Submit& submit) {
    v1::SessionRequest request;
    *request.mutable_submit() = submit;
    return stream_->Write(request);
  }
  // Without choices: all of the handle.
  bool SendCancel(uint64_t handle, const std::vector<int32_t>& choices = {}) {
    v1::SessionRequest request;
    request.mutable_cancel()->set_handle(handle);
    for (const int32_t choice : choices) {
      request.mutable_cancel()->add_choices(choice);
    }
    return stream_->Write(request);
  }

  // The next message; nothing when the stream is over.
  std::optional<v1::SessionResponse> Read() {
    v1::SessionResponse response;
    if (!stream_->Read(&response)) return std::nullopt;
    if (response.has_step()) Note(response.step());
    if (response.has_draining()) drained_ = true;
    return response;
  }

  // Reads until `done`; false when the stream ends first.
  bool ReadUntil(const std::function<bool()>& done) {
    while (!done()) {
      if (!Read().has_value()) return false;
    }
    return true;
  }
  bool ReadUntilEnd(uint64_t handle, size_t choices = 1) {
    return ReadUntil([&] {
      const HandleLog& log = logs_[handle];
      return log.error.has_value() || log.finishes.size() == choices;
    });
  }

  // Hello both ways.
  bool Open() {
    if (!SendHello()) return false;
    const auto response = Read();
    if (!response.has_value() || !response->has_hello()) return false;
    hello_ = response->hello();
    return true;
  }

  // The status of the stream, after what is left of it.
  absl::Status End() {
    while (Read().has_value()) {
    }
    finished_ = true;
    return FromGrpcStatus(stream_->Finish());
  }

  void CloseWrites() { stream_->WritesDone(); }
  void Cancel() { context_.TryCancel(); }

  const HandleLog& log(uint64_t handle) { return logs_[handle]; }
  const v1::Hello& hello() const { return hello_; }
  const v1::Load& last_load() const { return last_load_; }
  bool drained() const { return drained_; }
  int64_t step_messages() const { return step_messages_; }

 private:
  void Note(const v1::StepOutput& step) {
    ++step_messages_;
    last_load_ = step.load();
    for (const v1::PromptRecord& prompt : step.prompts()) {
      ++logs_[prompt.handle()].prompt_records;
    }
    for (const v1::TokenRecord& token : step.tokens()) {
      logs_[token.handle()].tokens[token.choice()].push_back(token.token_id());
    }
    for (const v1::ChoiceFinish& finish : step.finishes()) {
      logs_[finish.handle()].finishes.push_back(finish);
    }
    for (const v1::HandleError& error : step.errors()) {
      logs_[error.handle()].error = FromProtoError(error.error());
    }
  }

  grpc::ClientContext context_;
  std::unique_ptr<
      grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionResponse>>
      stream_;
  std::map<uint64_t, HandleLog> logs_;
  v1::Hello hello_;
  v1::Load last_load_;
  bool drained_ = false;
  bool finished_ = false;
  int64_t step_messages_ = 0;
};

}  // namespace caravan::testing

#endif  // CARAVAN_TESTS_WORKER_SERVER_TEST_SESSION_H_
