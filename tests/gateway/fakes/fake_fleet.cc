#include "tests/gateway/fakes/fake_fleet.h"

#include <grpcpp/server_builder.h>

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "caravan/v1/router.grpc.pb.h"
#include "caravan/v1/tokenizer.grpc.pb.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"

namespace caravan::gateway::testing {
namespace {

class FakeTokenizer final : public v1::TokenizerService::CallbackService {
 public:
  grpc::ServerUnaryReactor* Prepare(grpc::CallbackServerContext* context,
                                    const v1::PrepareRequest* request,
                                    v1::PrepareResponse* response) override {
    for (const v1::PrepareInput& input : request->inputs()) {
      v1::PreparedPrompt& prompt = *response->add_prompts();
      auto& ids = *prompt.mutable_token_ids();
      if (input.has_infill()) prompt.add_end_token_ids(kThe);
      if (!input.has_add_special_tokens() || input.add_special_tokens()) {
        ids.Add(kBos);
      }
      for (const char c : TextOf(input)) ids.Add(static_cast<uint8_t>(c));
    }
    response->set_tokenizer_id(id());
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerUnaryReactor* GetVocabulary(
      grpc::CallbackServerContext* context, const v1::GetVocabularyRequest*,
      v1::GetVocabularyResponse* response) override {
    for (const text::TokenEntry& entry : MakeLetters().tokens) {
      v1::VocabularyToken& token = *response->add_tokens();
      token.set_bytes(entry.bytes);
      token.set_kind(static_cast<v1::TokenKind>(entry.kind));
    }
    response->set_tokenizer_id(id());
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  void SetId(std::string id) {
    absl::MutexLock lock(&mutex_);
    id_ = std::move(id);
  }

 private:
  std::string id() const {
    absl::MutexLock lock(&mutex_);
    return id_;
  }

  mutable absl::Mutex mutex_;
  std::string id_ ABSL_GUARDED_BY(mutex_) = std::string(32, 't');

  // A conversation is "role: text" lines after its tools; a gap to fill is
  // "<prefix|suffix>", or "<suffix|prefix>".
  static std::string TextOf(const v1::PrepareInput& input) {
    if (input.has_text()) return input.text();
    if (input.has_infill()) {
      const v1::Infill& infill = input.infill();
      return infill.order() == v1::INFILL_ORDER_SUFFIX_PREFIX_MIDDLE
                 ? "<" + infill.suffix() + "|" + infill.prefix() + ">"
                 : "<" + infill.prefix() + "|" + infill.suffix() + ">";
    }
    std::string text;
    for (const v1::Tool& tool : input.conversation().tools()) {
      text += tool.definition_json() + "\n";
    }
    for (const v1::ChatMessage& message : input.conversation().messages()) {
      text += message.role() + ":";
      for (const v1::ContentPart& part : message.content()) text += part.text();
      text += "\n";
    }
    return text;
  }
};

class FakeRouter final : public v1::RouterService::CallbackService {
 public:
  grpc::ServerUnaryReactor* Place(grpc::CallbackServerContext* context,
                                  const v1::PlaceRequest* request,
                                  v1::PlaceResponse* response) override {
    absl::MutexLock lock(&mutex_);
    places_.push_back(*request);
    bool of_class = false;
    for (const v1::WorkerStatus& worker : workers_) {
      const v1::Registration& registration = worker.registration();
      const bool same_class =
          !request->has_required_identity() ||
          request->required_identity().numerics_class() ==
              registration.model().identity().numerics_class();
      of_class = of_class || same_class;
      const auto& excluded = request->excluded_worker_ids();
      if (!same_class ||
          std::find(excluded.begin(), excluded.end(),
                    registration.worker_id()) != excluded.end()) {
        continue;
      }
      v1::Target& target = *response->add_targets();
      target.set_worker_id(registration.worker_id());
      target.set_address(registration.address());
      target.set_epoch(registration.epoch());
      target.set_role(v1::TARGET_ROLE_WHOLE);
      *target.mutable_model() = registration.model();
    }
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    const Reason reason = request->has_required_identity()
                              ? Reason::kNoReplicaOfClass
                              : Reason::kNoReplica;
    reactor->Finish(response->targets_size() > 0
                        ? grpc::Status::OK
                        : ToGrpcStatus(MakeError(reason, "nobody is left")));
    return reactor;
  }

  grpc::ServerUnaryReactor* ListWorkers(
      grpc::CallbackServerContext* context, const v1::ListWorkersRequest*,
      v1::ListWorkersResponse* response) override {
    absl::MutexLock lock(&mutex_);
    for (const v1::WorkerStatus& worker : workers_) {
      *response->add_workers() = worker;
    }
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  absl::Mutex mutex_;
  std::vector<v1::WorkerStatus> workers_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::PlaceRequest> places_ ABSL_GUARDED_BY(mutex_);
};

std::unique_ptr<grpc::Server> Serve(grpc::Service* service, int* port) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + std::to_string(*port),
                           grpc::InsecureServerCredentials(), port);
  builder.RegisterService(service);
  return builder.BuildAndStart();
}

void Stop(std::unique_ptr<grpc::Server>& server) {
  if (!server) return;
  server->Shutdown(std::chrono::system_clock::now());
  server->Wait();
  server.reset();
}

}  // namespace

struct FakeFleet::State {
  FakeTokenizer tokenizer;
  FakeRouter router;
  int tokenizer_port = 0;
  int router_port = 0;
  std::unique_ptr<grpc::Server> tokenizer_server;
  std::unique_ptr<grpc::Server> router_server;
};

FakeFleet::FakeFleet() : state_(std::make_shared<State>()) {
  StartTokenizer();
  state_->router_server = Serve(&state_->router, &state_->router_port);
}

FakeFleet::~FakeFleet() {
  StopTokenizer();
  StopRouter();
}

void FakeFleet::Add(const FakeWorker& worker) {
  absl::MutexLock lock(&state_->router.mutex_);
  state_->router.workers_.push_back(worker.status());
}

void FakeFleet::Remove(const std::string& worker_id) {
  absl::MutexLock lock(&state_->router.mutex_);
  std::erase_if(state_->router.workers_, [&](const v1::WorkerStatus& worker) {
    return worker.registration().worker_id() == worker_id;
  });
}

std::string FakeFleet::router_address() const {
  return "127.0.0.1:" + std::to_string(state_->router_port);
}

std::string FakeFleet::tokenizer_address() const {
  return "127.0.0.1:" + std::to_string(state_->tokenizer_port);
}

void FakeFleet::StopTokenizer() { Stop(state_->tokenizer_server); }

void FakeFleet::StartTokenizer() {
  state_->tokenizer_server = Serve(&state_->tokenizer, &state_->tokenizer_port);
}

void FakeFleet::StopRouter() { Stop(state_->router_server); }

std::vector<v1::PlaceRequest> FakeFleet::places() const {
  absl::MutexLock lock(&state_->router.mutex_);
  return state_->router.places_;
}

void FakeFleet::SetTokenizerId(std::string id) {
  state_->tokenizer.SetId(std::move(id));
}

}  // namespace caravan::gateway::testing
