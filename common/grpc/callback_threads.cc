#include "common/grpc/callback_threads.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>

namespace caravan {
namespace {

// A server without a port: nobody can call it.
struct Keeper {
  grpc::CallbackGenericService service;
  std::unique_ptr<grpc::Server> server;
};

const Keeper* MakeKeeper() {
  auto* const keeper = new Keeper();
  grpc::ServerBuilder builder;
  builder.RegisterCallbackGenericService(&keeper->service);
  keeper->server = builder.BuildAndStart();
  return keeper;
}

}  // namespace

void KeepCallbackThreads() {
  static const Keeper* const keeper = MakeKeeper();  // never deleted
  (void)keeper;
}

}  // namespace caravan
