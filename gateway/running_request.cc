#include "gateway/running_request.h"

#include <algorithm>
#include <utility>

namespace caravan::gateway {

RunningRequest::RunningRequest(const GenerationContext& context,
                               GenerationRequest request)
    : context(context),
      request(std::move(request)),
      inbox(std::make_shared<Inbox>(context.inbox, *context.clock)),
      arrival(context.clock->Now()) {}

bool RunningRequest::has_output() const {
  return std::any_of(groups.begin(), groups.end(),
                     [](const PromptGroup& g) { return g.has_output(); });
}

Patience RunningRequest::PatienceFor(absl::Duration duration) const {
  Patience patience;
  patience.deadline =
      std::min(absl::Now() + duration,
               request.deadline == absl::InfiniteFuture()
                   ? absl::InfiniteFuture()
                   : absl::Now() + (request.deadline - context.clock->Now()));
  patience.wanted = [inbox = inbox] { return inbox->cancelled().ok(); };
  return patience;
}

}  // namespace caravan::gateway
