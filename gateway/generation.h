// The stream of one request: starts it, passes on what its workers send, and
// ends it once.
#ifndef CARAVAN_GATEWAY_GENERATION_H_
#define CARAVAN_GATEWAY_GENERATION_H_

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gateway/group_placer.h"
#include "gateway/running_request.h"
#include "gateway/stream/inbox.h"
#include "gateway/stream/token_stream.h"

namespace caravan::gateway {

// Runs on its reader's executor; Cancel, BeginWrite and EndWrite may come from
// any thread.
class Generation final : public TokenStream {
 public:
  Generation(const GenerationContext& context, GenerationRequest request);
  ~Generation() override;

  const GenerationRequest& request() const override { return run_.request; }
  boost::asio::awaitable<absl::StatusOr<StreamEvents>> Next() override;
  void Cancel(absl::Status status) override { run_.inbox->Cancel(status); }
  void BeginWrite() override { run_.inbox->BeginWrite(); }
  void EndWrite() override { run_.inbox->EndWrite(); }

 private:
  boost::asio::awaitable<absl::StatusOr<StreamEvents>> Advance();
  absl::Status ApplyAll(InboxContents contents);
  PromptGroup* GroupOf(uint64_t handle);
  StreamEvents TakeEvents();
  void FilterToolCalls(StreamEvents& events);

  // Measures.
  void CountTokens(int32_t count);
  void SettleAdmission();
  void End(const absl::Status& status);

  RunningRequest run_;
  GroupPlacer placer_{&run_};

  bool started_ = false;
  bool started_sent_ = false;
  bool ended_ = false;
  int64_t generated_tokens_ = 0;
  std::optional<absl::Time> last_token_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_GENERATION_H_
