#include "worker/server/worker_facts.h"

#include <algorithm>
#include <array>

#include "common/build_info.h"
#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

constexpr std::array<v1::Feature, 4> kFeatures = {
    v1::FEATURE_PROMPT_LOGPROBS,
    v1::FEATURE_MULTIPLE_CHOICES,
    v1::FEATURE_RESUME,
    v1::FEATURE_CANCEL_CHOICES,
};

std::string FeatureName(int feature) {
  return v1::Feature_IsValid(feature)
             ? v1::Feature_Name(static_cast<v1::Feature>(feature))
             : StrCat("FEATURE_", feature);
}

}  // namespace

std::span<const v1::Feature> KnownFeatures() { return kFeatures; }

absl::Status CheckFeatures(std::span<const int> required) {
  for (const int feature : required) {
    if (std::find(kFeatures.begin(), kFeatures.end(), feature) !=
        kFeatures.end()) {
      continue;
    }
    const std::string name = FeatureName(feature);
    return MakeError(Reason::kUnsupportedFeature,
                     StrCat("required_features names ", name,
                            ", which this worker does not know"),
                     {{"feature", name}, {"build", std::string(BuildId())}});
  }
  return absl::OkStatus();
}

v1::Hello MakeHello(const WorkerFacts& facts) {
  v1::Hello hello;
  hello.set_least_revision(kLeastProtocolRevision);
  hello.set_greatest_revision(kGreatestProtocolRevision);
  hello.set_build(std::string(BuildId()));
  hello.set_epoch(facts.epoch);
  for (const v1::Feature feature : KnownFeatures()) {
    hello.add_features(feature);
  }
  hello.set_sender_id(facts.worker_id);
  return hello;
}

absl::Status CheckHello(const v1::Hello& hello) {
  const int least = hello.least_revision();
  const int greatest = hello.greatest_revision();
  if (least < 1 || greatest < least) {
    return FieldError("hello", "a range of protocol revisions from 1",
                      StrCat("[", least, ", ", greatest, "]"));
  }
  if (least <= kGreatestProtocolRevision &&
      greatest >= kLeastProtocolRevision) {
    return absl::OkStatus();
  }
  return MakeError(
      Reason::kProtocolMismatch,
      StrCat("this worker speaks protocol revisions [", kLeastProtocolRevision,
             ", ", kGreatestProtocolRevision, "]; the peer speaks [", least,
             ", ", greatest, "]"),
      {{"least", StrCat(kLeastProtocolRevision)},
       {"greatest", StrCat(kGreatestProtocolRevision)},
       {"peer_least", StrCat(least)},
       {"peer_greatest", StrCat(greatest)}});
}

}  // namespace caravan::worker
