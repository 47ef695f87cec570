// The way of a request up to its groups: validate, admit, prepare.
#ifndef CARAVAN_GATEWAY_REQUEST_START_H_
#define CARAVAN_GATEWAY_REQUEST_START_H_

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caravan/v1/tokenizer.pb.h"
#include "gateway/running_request.h"

namespace caravan::gateway {

// Not thread-safe.
class RequestStart {
 public:
  // `run` must outlive it.
  explicit RequestStart(RunningRequest* run) : run_(*run) {}

  // Fills `run` up to its groups and tool filters; once. Errors: those of the
  // request's fields, of admission, the directory and the tokenizer;
  // kDeadlineExceeded; whatever the request was cancelled with.
  boost::asio::awaitable<absl::Status> Run();

 private:
  // The stages, in order; each once.
  boost::asio::awaitable<void> ArmDeadline();
  boost::asio::awaitable<absl::Status> FindModel();
  boost::asio::awaitable<absl::Status> Admit();
  boost::asio::awaitable<absl::Status> FetchVocabulary();
  boost::asio::awaitable<absl::Status> Prepare();
  absl::Status MakeGroups();

  absl::Status PinIdentity();
  std::string PromptField(size_t index) const;
  void AdoptAnswerEnd(const v1::PreparedPrompt& prompt);
  absl::StatusOr<sampling::StopCriteria> StopOf(int32_t prompt_tokens) const;
  void MakeToolFilters();

  RunningRequest& run_;
  std::vector<std::vector<TokenId>> prompts_;
  // What ends an answer in the prompt's format, beside what the request says.
  std::vector<TokenId> format_end_ids_;
  std::vector<std::string> format_stop_texts_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_REQUEST_START_H_
