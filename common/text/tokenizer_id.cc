#include <openssl/evp.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/tokenizer_model.h"

namespace caravan::text {
namespace {

static_assert(std::endian::native == std::endian::little);

// SHA-256 over fields that cannot run into each other: integers of fixed size,
// strings with their length.
class Listing {
 public:
  Listing() : context_(EVP_MD_CTX_new()) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void Add(uint32_t value) { Bytes(&value, sizeof value); }
  void Add(std::string_view text) {
    Add(static_cast<uint32_t>(text.size()));
    Bytes(text.data(), text.size());
  }
  void Add(const std::vector<TokenId>& ids) {
    Add(static_cast<uint32_t>(ids.size()));
    for (const TokenId id : ids) Add(static_cast<uint32_t>(id));
  }
  std::string Finish() {
    Flush();
    std::string digest(32, '\0');
    EVP_DigestFinal_ex(context_.get(),
                       reinterpret_cast<unsigned char*>(digest.data()),
                       nullptr);
    return digest;
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  void Bytes(const void* data, size_t size) {
    pending_.append(static_cast<const char*>(data), size);
    if (pending_.size() >= kPendingBytes) Flush();
  }
  void Flush() {
    EVP_DigestUpdate(context_.get(), pending_.data(), pending_.size());
    pending_.clear();
  }
  static constexpr size_t kPendingBytes = 1 << 14;  // a call costs more
  std::string pending_;
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

void AddTokens(const TokenizerModel& model, Listing* listing) {
  listing->Add(static_cast<uint32_t>(model.vocabulary.size()));
  for (const TokenEntry& token : model.vocabulary.tokens) {
    const bool named =
        token.kind == TokenKind::kNormal || token.kind == TokenKind::kByte;
    listing->Add(static_cast<uint32_t>(token.kind));
    listing->Add(named ? std::string_view(token.bytes) : std::string_view());
  }
}

void AddMerging(const Merging& merging, Listing* listing) {
  listing->Add(merging.bytes_are_symbols);
  listing->Add(merging.whole_piece_first);
  listing->Add(merging.byte_fallback);
  listing->Add(static_cast<uint32_t>(merging.unknown_id.value_or(-1)));
  listing->Add(static_cast<uint32_t>(merging.extra_symbols.size()));
  for (const std::string& symbol : merging.extra_symbols) listing->Add(symbol);
  listing->Add(static_cast<uint32_t>(merging.pairs.size()));
  for (const MergePair& pair : merging.pairs) {
    listing->Add(static_cast<uint32_t>(pair.left));
    listing->Add(static_cast<uint32_t>(pair.right));
    listing->Add(static_cast<uint32_t>(pair.result));
  }
}

void AddNormalization(const Normalization& n, Listing* listing) {
  listing->Add(static_cast<uint32_t>(n.prefix));
  listing->Add(n.prefix_unless_present);
  listing->Add(n.visible_spaces);
  listing->Add(n.collapse_spaces);
  listing->Add(n.split_at_spaces);
}

// Ids of tokens that are found by name although they are ordinary text.
std::vector<TokenId> AtomicIds(const TokenizerModel& model) {
  std::vector<TokenId> ids = model.user_defined;
  for (const AddedToken& token : model.added_tokens) {
    if (!token.special) ids.push_back(token.id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

// Which of those are found in the normalized text, where that can change the
// ids: text is normalized before, or names of the other kind come first.
void AddNormalizedNames(const TokenizerModel& model, Listing* listing) {
  std::vector<TokenId> ids;
  bool others = false;
  for (const AddedToken& token : model.added_tokens) {
    if (token.special) continue;
    if (token.normalized) ids.push_back(token.id);
    others = others || !token.normalized;
  }
  if (ids.empty() || !(others || model.stages)) return;
  std::sort(ids.begin(), ids.end());
  listing->Add("normalized names");
  listing->Add(ids);
  if (model.stages) AddNormalization(model.stages->before_names, listing);
}

}  // namespace

std::string TokenizerIdOf(const TokenizerModel& model) {
  Listing listing;
  listing.Add("caravan tokenizer v1");
  AddTokens(model, &listing);
  AddMerging(model.merging, &listing);
  AddNormalization(model.normalization, &listing);
  listing.Add(static_cast<uint32_t>(model.patterns.size()));
  for (const std::string& pattern : model.patterns) listing.Add(pattern);
  listing.Add(AtomicIds(model));
  listing.Add(model.unused);
  listing.Add(model.prefix_ids);
  listing.Add(model.suffix_ids);
  AddNormalizedNames(model, &listing);
  return listing.Finish();
}

}  // namespace caravan::text
