// The tokenizer service, as the CLI uses it.
#ifndef CARAVAN_SERVICES_CLI_TOKENIZER_CLIENT_H_
#define CARAVAN_SERVICES_CLI_TOKENIZER_CLIENT_H_

#include <string>

#include "absl/status/statusor.h"
#include "caravan/v1/tokenizer.pb.h"
#include "services/cli/client_options.h"

namespace caravan::cli {

// All block. Errors: those of the service.
absl::StatusOr<v1::PrepareResponse> Prepare(const ClientOptions& options,
                                            const v1::PrepareRequest& request);
absl::StatusOr<v1::GetVocabularyResponse> GetVocabulary(
    const ClientOptions& options, const v1::GetVocabularyRequest& request);
absl::StatusOr<v1::ListTokenizerModelsResponse> ListTokenizerModels(
    const ClientOptions& options);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_TOKENIZER_CLIENT_H_
