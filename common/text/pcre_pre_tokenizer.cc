// Pre-tokenizer patterns that are given as data, through PCRE2 with its JIT.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/status/errors.h"
#include "common/strings.h"
#include "common/text/pre_tokenizer.h"

namespace caravan::text {
namespace {

constexpr size_t kMaxPatternBytes = 16384;
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kDepthLimit = 10'000;
constexpr size_t kJitStackBytes = 1 << 20;

struct FreePcre {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
template <typename T>
using PcrePtr = std::unique_ptr<T, FreePcre>;

std::string PcreMessage(int code) {
  char message[256];
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(message),
                          sizeof(message));
  return message;
}

PCRE2_SPTR Bytes(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

// The state of one Split: PCRE2 wants it apart from the pattern.
struct MatchState {
  explicit MatchState(const pcre2_code* code)
      : data(pcre2_match_data_create_from_pattern(code, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr)) {
    pcre2_set_match_limit(context.get(), kMatchLimit);
    pcre2_set_depth_limit(context.get(), kDepthLimit);
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
  PcrePtr<pcre2_match_data> data;
  PcrePtr<pcre2_match_context> context;
  PcrePtr<pcre2_jit_stack> stack;
};

class PcrePreTokenizer final : public PreTokenizer {
 public:
  explicit PcrePreTokenizer(PcrePtr<pcre2_code> code)
      : code_(std::move(code)) {}

  absl::StatusOr<size_t> SplitSome(
      std::string_view text, size_t start, size_t most,
      std::vector<std::string_view>* pieces) const override {
    const MatchState state(code_.get());
    size_t done = start;  // what lies before is in pieces
    while (done < text.size() && most > 0) {
      const int count = pcre2_match(code_.get(), Bytes(text), text.size(), done,
                                    PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                                    state.data.get(), state.context.get());
      if (count == PCRE2_ERROR_NOMATCH) break;
      if (count < 0) return MatchError(count, done);
      const PCRE2_SIZE* const range =
          pcre2_get_ovector_pointer(state.data.get());
      if (range[1] <= range[0] || range[0] < done) break;  // \K and the like
      if (range[0] > done) {
        pieces->push_back(text.substr(done, range[0] - done));
      }
      pieces->push_back(text.substr(range[0], range[1] - range[0]));
      done = range[1];
      --most;
    }
    if (most == 0 || done == text.size()) return done;
    pieces->push_back(text.substr(done));
    return text.size();
  }

 private:
  static absl::Status MatchError(int code, size_t offset) {
    return MakeError(Reason::kInvalidField,
                     StrCat("the model's pre-tokenizer pattern gave up at "
                            "byte ",
                            offset, " of the text: ", PcreMessage(code)));
  }

  PcrePtr<pcre2_code> code_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PreTokenizer>> CreatePcrePreTokenizer(
    const std::string& pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return MakeError(Reason::kModelFileInvalid,
                     StrCat("pre-tokenizer pattern must be at most ",
                            kMaxPatternBytes, " bytes; got ", pattern.size()));
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  PcrePtr<pcre2_code> code(
      pcre2_compile(Bytes(pattern), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error,
                    &offset, nullptr));
  if (code == nullptr) {
    return MakeError(Reason::kModelFileInvalid,
                     StrCat("pre-tokenizer pattern is not valid at offset ",
                            offset, ": ", PcreMessage(error)));
  }
  // Without a JIT (or where it refuses a pattern) matching still works.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return std::make_unique<PcrePreTokenizer>(std::move(code));
}

}  // namespace caravan::text
