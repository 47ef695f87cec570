// The gateway's side of the tokenizer service.
#ifndef CARAVAN_GATEWAY_BACKEND_TOKENIZER_CLIENT_H_
#define CARAVAN_GATEWAY_BACKEND_TOKENIZER_CLIENT_H_

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caravan/v1/tokenizer.pb.h"
#include "common/grpc/channel.h"
#include "common/text/vocabulary.h"
#include "gateway/backend/failover.h"
#include "gateway/request.h"

namespace caravan::gateway {

// A vocabulary with the id by which it is cached.
struct NamedVocabulary {
  std::string tokenizer_id;
  std::shared_ptr<const text::Vocabulary> vocabulary;
};

// Any copy of the service answers alike; a call waits and tries again within
// its patience.
//
// Thread-safe.
class TokenizerClient {
 public:
  // `addresses` are HOST:PORT, at least one.
  static absl::StatusOr<std::unique_ptr<TokenizerClient>> Create(
      const std::vector<std::string>& addresses, const ChannelOptions& options);
  ~TokenizerClient();

  // Errors: those of TokenizerService.Prepare; kTokenizerUnavailable.
  boost::asio::awaitable<absl::StatusOr<v1::PrepareResponse>> Prepare(
      v1::PrepareRequest request, Patience patience);

  // Errors: kModelNotFound, kTokenizerUnavailable.
  boost::asio::awaitable<absl::StatusOr<NamedVocabulary>> GetVocabulary(
      std::string model, Patience patience);

 private:
  struct Stubs;
  explicit TokenizerClient(std::unique_ptr<Stubs> stubs);

  const std::unique_ptr<Stubs> stubs_;
};

// What Prepare takes for a text, a conversation or a gap to fill.
v1::PrepareInput ToPrepareInput(const PromptInput& prompt,
                                bool add_special_tokens = true);

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_BACKEND_TOKENIZER_CLIENT_H_
