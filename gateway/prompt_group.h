// The choices of one prompt: what they have produced, and where they run.
#ifndef CARAVAN_GATEWAY_PROMPT_GROUP_H_
#define CARAVAN_GATEWAY_PROMPT_GROUP_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caravan/v1/router.pb.h"
#include "caravan/v1/worker.pb.h"
#include "common/sampling/params.h"
#include "common/text/incremental_decoder.h"
#include "gateway/backend/worker_client.h"
#include "gateway/placement.h"
#include "gateway/stream/choice_stream.h"
#include "gateway/stream/inbox.h"

namespace caravan::gateway {

// How a prompt reads: its text, and the decoder's state at its end.
struct PromptText {
  PromptText(const text::Vocabulary& vocabulary, bool skip_special_tokens)
      : decoder(vocabulary, skip_special_tokens) {}
  std::string text;                   // only where it is echoed
  std::vector<int32_t> text_offsets;  // of each token, likewise
  text::IncrementalDecoder decoder;
};
PromptText ReadPrompt(const text::Vocabulary& vocabulary,
                      std::span<const TokenId> ids, bool skip_special_tokens,
                      bool echo);

// Where a group is about to move: what is known of it is computed there while
// it still runs where it was, so that the client waits for little more.
struct Warmup {
  std::shared_ptr<WorkerSession> session;
  uint64_t handle = 0;
  v1::Target target;
  absl::Time give_up;  // the move waits no longer
  bool over = false;   // computed, or failed
};

// Not thread-safe: owned by its generation.
class PromptGroup {
 public:
  struct Init {
    int32_t index = 0;  // of the prompt
    std::vector<TokenId> ids;
    sampling::StopCriteria stop;
    int32_t n = 1;
    bool wants_scores = false;
    bool wants_text = false;  // echo
    bool skip_special_tokens = true;
  };
  // Vocabulary and options must outlive the group.
  PromptGroup(Init init, const text::Vocabulary& vocabulary,
              const ChoiceOptions& options);

  // Continues a choice after output of an earlier call.
  absl::Status Resume(int32_t choice, std::span<const TokenId> output);

  // Applies what a worker sent, unless it is from an earlier placement.
  // Returns the number of new tokens. Error: kInternal for a gap; the group is
  // then broken. Failures of the worker are kept in `failure`.
  absl::StatusOr<int32_t> Apply(HandleEvents events);

  // What is new for the client, in order.
  void TakeEvents(StreamEvents& events);

  // Ends the choices whose output is as long as it may be, or ends with an end
  // token: there is nothing left to submit of them.
  void FinishSpent();

  // All choices have ended.
  bool complete() const;
  // Something may be said to the client: the prompt's scores are whole.
  bool ready() const;
  bool has_output() const;

  // The rest of a placement query and of a submit.
  void Describe(PlacementQuery& query) const;
  void Describe(v1::Submit& submit) const;

  // The placement that runs now.
  void Attach(std::shared_ptr<WorkerSession> session, uint64_t handle,
              const v1::Target& target);
  // Ends what runs at the worker, if anything does, and a warm-up.
  void Detach();
  // The move's target is getting ready.
  void BeginWarmup(Warmup warmup);
  // The target, once, when it is ready or has taken too long.
  std::optional<v1::Target> TakeWarmTarget(absl::Time now);
  // Ends at the worker what has ended here: only here stop texts are known.
  void EndFinished();
  bool attached() const { return session_ != nullptr; }
  // Whether events of this handle are for the group.
  bool Hears(uint64_t handle) const {
    return (attached() && handle == handle_) ||
           (warmup_ && handle == warmup_->handle);
  }
  const ReplicaLife& replica() const { return replica_; }

  int32_t index() const { return init_.index; }
  const std::vector<TokenId>& ids() const { return init_.ids; }
  const sampling::StopCriteria& stop() const { return init_.stop; }
  const std::vector<ChoiceStream>& choices() const { return choices_; }
  int32_t cached_token_count() const { return cached_token_count_; }
  int32_t output_token_count() const;

  // What is to be done about it is the generation's decision.
  absl::Status failure;      // not OK: the placement has failed
  bool worker_died = false;  // with a failure: it was the worker
  bool should_move = false;  // the worker drains
  bool queued = false;       // nothing of it has run at the worker yet

  // Who computes it now, or did last.
  std::optional<v1::ModelIdentity> identity;

  // Since the last new token.
  int32_t attempts = 0;
  int32_t deaths = 0;
  std::vector<ReplicaLife> excluded;

 private:
  bool has_scores() const;
  absl::Status ApplyScores(std::vector<WorkerScore> scores);
  absl::StatusOr<int32_t> ApplyTokens(std::vector<WorkerToken> tokens);
  void EndWarmup();
  absl::Status ApplyFinishes(const std::vector<WorkerFinish>& finishes);
  absl::StatusOr<ChoiceStream*> ChoiceOf(int32_t choice);

  Init init_;
  const ChoiceOptions& options_;
  PromptText prompt_text_;
  std::vector<ChoiceStream> choices_;
  std::vector<TokenPiece> scores_;
  bool computed_ = false;    // a worker has spoken of the prompt
  bool ready_sent_ = false;  // PromptReady was taken
  int32_t cached_token_count_ = 0;

  std::shared_ptr<WorkerSession> session_;
  uint64_t handle_ = 0;
  std::vector<bool> running_;  // by choice: at the worker, as far as is known
  ReplicaLife replica_;
  std::optional<Warmup> warmup_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_PROMPT_GROUP_H_
