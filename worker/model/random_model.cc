#include "worker/model/random_model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <system_error>
#include <utility>

#include "common/json.h"
#include "common/sampling/philox.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/config.h"
#include "worker/model/gguf_plan.h"
#include "worker/model/layout.h"
#include "worker/model/output_file.h"
#include "worker/model/parallel.h"
#include "worker/model/random_tokenizer.h"
#include "worker/ops/canonical_math.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker {
namespace {

using nlohmann::ordered_json;

// What distinguishes the shapes; the rest of config.json is common.
struct Shape {
  std::string_view name;
  int32_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab;
  double rope_theta;
  double llama3_factor;  // 0: no rope_scaling
  int32_t context;
  bool tied;
};

constexpr Shape kShapes[] = {
    {"tiny", 64, 172, 2, 4, 2, 16, 512, 1e4, 0, 512, true},
    // As many key-value heads as there can be ranks.
    {"tiny-wide", 128, 344, 2, 16, 8, 16, 512, 1e4, 0, 512, true},
    // About 48 million parameters: streams that last, in little memory.
    {"small", 512, 1536, 14, 8, 4, 64, 8192, 1e4, 0, 2048, true},
    {"tinyllama", 2048, 5632, 22, 32, 4, 64, 32000, 1e4, 0, 2048, false},
    {"llama-2-7b", 4096, 11008, 32, 32, 32, 128, 32000, 1e4, 0, 4096, false},
    {"llama-2-13b", 5120, 13824, 40, 40, 40, 128, 32000, 1e4, 0, 4096, false},
    {"llama-2-70b", 8192, 28672, 80, 64, 8, 128, 32000, 1e4, 0, 4096, false},
    {"llama-3-8b", 4096, 14336, 32, 32, 8, 128, 128256, 5e5, 0, 8192, false},
    {"llama-3-70b", 8192, 28672, 80, 64, 8, 128, 128256, 5e5, 0, 8192, false},
    {"llama-3.1-8b", 4096, 14336, 32, 32, 8, 128, 128256, 5e5, 8, 131072,
     false},
    {"llama-3.2-1b", 2048, 8192, 16, 32, 8, 64, 128256, 5e5, 32, 131072, true},
    {"llama-3.2-3b", 3072, 8192, 28, 24, 8, 128, 128256, 5e5, 32, 131072,
     true}};

absl::StatusOr<Shape> FindShape(std::string_view name) {
  std::string all;
  for (const Shape& shape : kShapes) {
    if (shape.name == name) return shape;
    StrAppend(&all, all.empty() ? "" : ", ", shape.name);
  }
  return FieldError("--shape", StrCat("one of ", all), name);
}

std::string_view TorchName(DType dtype) {
  switch (dtype) {
    case DType::kFp32:
      return "float32";
    case DType::kBf16:
      return "bfloat16";
    case DType::kFp16:
      return "float16";
    case DType::kFp8:  // no model's
      break;
  }
  return "float32";
}

std::string_view SafetensorsName(DType dtype) {
  switch (dtype) {
    case DType::kFp32:
      return "F32";
    case DType::kBf16:
      return "BF16";
    case DType::kFp16:
      return "F16";
    case DType::kFp8:
      break;
  }
  return "F32";
}

ordered_json ConfigOf(const Shape& shape, DType dtype) {
  ordered_json scaling = nullptr;
  if (shape.llama3_factor > 0) {
    scaling = {{"rope_type", "llama3"},
               {"factor", shape.llama3_factor},
               {"low_freq_factor", 1.0},
               {"high_freq_factor", 4.0},
               {"original_max_position_embeddings", 8192}};
  }
  return {
      {"architectures", ordered_json::array({"LlamaForCausalLM"})},
      {"model_type", "llama"},
      {"hidden_act", "silu"},
      {"hidden_size", shape.hidden},
      {"intermediate_size", shape.intermediate},
      {"num_hidden_layers", shape.layers},
      {"num_attention_heads", shape.heads},
      {"num_key_value_heads", shape.kv_heads},
      {"head_dim", shape.head_dim},
      {"vocab_size", shape.vocab},
      {"max_position_embeddings", shape.context},
      {"rms_norm_eps", 1e-5},
      {"rope_theta", shape.rope_theta},
      {"rope_scaling", scaling},
      {"attention_bias", false},
      {"mlp_bias", false},
      {"tie_word_embeddings", shape.tied},
      {"bos_token_id", RandomBosId(shape.vocab)},
      {"eos_token_id", ordered_json::array({RandomEndOfTextId(shape.vocab),
                                            RandomEndOfTurnId(shape.vocab)})},
      {"torch_dtype", std::string(TorchName(dtype))}};
}

// The standard normal distribution's integral up to x, for |x| < 6:
// 1/2 + phi(x) (x + x^3/3 + x^5/(3*5) + ...).
double NormalIntegral(double x) {
  double term = x;
  double sum = x;
  for (int k = 3; k < 200 && term > 1e-18 * sum; k += 2) {
    term *= x * x / k;
    sum += term;
  }
  constexpr double kInverseSqrtTwoPi = 0.39894228040143267794;
  return 0.5 + kInverseSqrtTwoPi * Exp64(-x * x / 2) * sum;
}

// The quantiles (i + 1/2) / 65536 of the normal distribution, times deviation.
std::vector<float> NormalQuantiles(double deviation) {
  constexpr int kCount = 65536;
  constexpr double kSqrtTwoPi = 2.50662827463100050242;
  std::vector<float> quantiles(kCount);
  double x = 0;
  for (int i = kCount / 2; i < kCount; ++i) {
    const double wanted = (i + 0.5) / kCount;
    for (int step = 0; step < 8; ++step) {  // Newton, from the one before
      x += (wanted - NormalIntegral(x)) * kSqrtTwoPi * Exp64(x * x / 2);
    }
    quantiles[i] = static_cast<float>(x * deviation);
    quantiles[kCount - 1 - i] = -quantiles[i];
  }
  return quantiles;
}

// The value of a float in a type's storage, low bytes first.
uint32_t BitsOf(float value, DType dtype) {
  switch (dtype) {
    case DType::kFp32:
      return std::bit_cast<uint32_t>(value);
    case DType::kBf16:
      return ToBf16(value).bits;
    case DType::kFp16:
      return ToFp16(value).bits;
    case DType::kFp8:
      break;
  }
  return 0;
}

// Makes elements of tensors. Thread-safe: immutable.
class ElementSource {
 public:
  ElementSource(DType dtype, uint64_t seed)
      : dtype_(dtype),
        key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
        one_(BitsOf(1.0f, dtype)) {
    for (const float value : NormalQuantiles(/*deviation=*/0.02)) {
      table_.push_back(BitsOf(value, dtype));
    }
  }

  // Elements [first, first + out.size() / width) of tensor `index`; `first`
  // a multiple of 8.
  void Fill(const TensorSpec& tensor, uint32_t index, uint64_t first,
            std::span<std::byte> out) const {
    const bool norm = tensor.group == TensorGroup::kNorms;
    if (dtype_ == DType::kFp32) {
      FillAs<uint32_t>(norm, index, first, out);
    } else {
      FillAs<uint16_t>(norm, index, first, out);
    }
  }

 private:
  template <typename T>
  void FillAs(bool norm, uint32_t index, uint64_t first,
              std::span<std::byte> out) const {
    T* const target = reinterpret_cast<T*>(out.data());
    const size_t count = out.size() / sizeof(T);
    for (size_t i = 0; i < count; i += 8) {
      const size_t some = std::min<size_t>(8, count - i);
      const uint64_t block = (first + i) / 8;
      const auto draw = sampling::Philox4x32(
          {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
           index, kPurpose},
          key_);
      for (size_t j = 0; j < some; ++j) {
        const uint32_t quantile = (draw[j / 2] >> (16 * (j % 2))) & 0xffff;
        target[i + j] = static_cast<T>(norm ? one_ : table_[quantile]);
      }
    }
  }

  // Of the draws, beside sampling::DrawPurpose.
  static constexpr uint32_t kPurpose = 0x77656967;

  const DType dtype_;
  const sampling::PhiloxKey key_;
  const uint32_t one_;
  std::vector<uint32_t> table_;
};

absl::Status WriteError(const std::string& path) {
  const std::error_code error(errno, std::generic_category());
  return MakeError(Reason::kInternal,
                   StrCat(path, ": cannot be written: ", error.message()),
                   {{"file", path}});
}

absl::Status WriteText(const std::string& path, std::string_view text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.close();
  return out ? absl::OkStatus() : WriteError(path);
}

// A tensor with its number among all tensors: part of its random numbers.
struct NumberedTensor {
  TensorSpec spec;
  uint32_t index = 0;
};

// Some elements of one tensor.
struct Piece {
  const NumberedTensor* tensor = nullptr;
  uint64_t first = 0;
  uint64_t count = 0;
  uint64_t offset = 0;  // in the file
};

ordered_json ShapeOf(const TensorSpec& tensor) {
  ordered_json shape = ordered_json::array({tensor.rows});
  if (tensor.cols > 0) shape.push_back(tensor.cols);
  return shape;
}

// The file's header, padded to 8 bytes, and all pieces behind it.
std::string MakeHeader(const std::vector<NumberedTensor>& tensors, DType dtype,
                       std::vector<Piece>& pieces) {
  constexpr uint64_t kPieceElements = 1 << 20;
  ordered_json header;
  uint64_t next = 0;
  for (const NumberedTensor& tensor : tensors) {
    const uint64_t elements = static_cast<uint64_t>(tensor.spec.elements());
    const uint64_t end = next + elements * SizeOf(dtype);
    header[tensor.spec.name] = {
        {"dtype", std::string(SafetensorsName(dtype))},
        {"shape", ShapeOf(tensor.spec)},
        {"data_offsets", ordered_json::array({next, end})}};
    for (uint64_t first = 0; first < elements; first += kPieceElements) {
      pieces.push_back({&tensor, first,
                        std::min(kPieceElements, elements - first),
                        next + first * SizeOf(dtype)});
    }
    next = end;
  }
  std::string text = DumpJson(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  for (Piece& piece : pieces) piece.offset += 8 + text.size();
  return text;
}

absl::Status WriteFile(const std::string& path,
                       const std::vector<NumberedTensor>& tensors,
                       const ElementSource& source,
                       const RandomModelOptions& options) {
  std::vector<Piece> pieces;
  const std::string header = MakeHeader(tensors, options.dtype, pieces);
  const Piece& last = pieces.back();
  CARAVAN_ASSIGN_OR_RETURN(
      OutputFile file,
      OutputFile::Create(path,
                         last.offset + last.count * SizeOf(options.dtype)));
  std::array<std::byte, 8> length;
  for (size_t i = 0; i < length.size(); ++i) {
    length[i] = static_cast<std::byte>(header.size() >> (8 * i));
  }
  CARAVAN_RETURN_IF_ERROR(file.WriteAt(0, length));
  CARAVAN_RETURN_IF_ERROR(file.WriteAt(8, std::as_bytes(std::span(header))));
  const auto write = [&](size_t i) {
    const Piece& piece = pieces[i];
    std::vector<std::byte> bytes(piece.count * SizeOf(options.dtype));
    source.Fill(piece.tensor->spec, piece.tensor->index, piece.first, bytes);
    return file.WriteAt(piece.offset, bytes);
  };
  CARAVAN_RETURN_IF_ERROR(
      ForEachParallel(pieces.size(), options.threads, write));
  return file.Close();
}

// Tensors in order, cut where the next one would go past the limit.
std::vector<std::vector<NumberedTensor>> CutIntoFiles(
    const std::vector<TensorSpec>& tensors, DType dtype, uint64_t limit) {
  std::vector<std::vector<NumberedTensor>> files(1);
  uint64_t bytes = 0;
  uint32_t index = 0;
  for (const TensorSpec& tensor : tensors) {
    const uint64_t more =
        static_cast<uint64_t>(tensor.elements()) * SizeOf(dtype);
    if (!files.back().empty() && bytes + more > limit) {
      files.emplace_back();
      bytes = 0;
    }
    files.back().push_back({tensor, index++});
    bytes += more;
  }
  return files;
}

std::string FileName(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors",
                index + 1, count);
  return name;
}

absl::Status WriteWeights(const std::string& directory,
                          const std::vector<TensorSpec>& tensors,
                          const RandomModelOptions& options) {
  const auto files =
      CutIntoFiles(tensors, options.dtype, options.max_file_bytes);
  const ElementSource source(options.dtype, options.seed);
  ordered_json map = ordered_json::object();
  uint64_t total = 0;
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string name = FileName(i, files.size());
    CARAVAN_RETURN_IF_ERROR(
        WriteFile(StrCat(directory, "/", name), files[i], source, options));
    for (const NumberedTensor& tensor : files[i]) {
      map[tensor.spec.name] = name;
      total +=
          static_cast<uint64_t>(tensor.spec.elements()) * SizeOf(options.dtype);
    }
  }
  if (files.size() == 1) return absl::OkStatus();
  const ordered_json index = {{"metadata", {{"total_size", total}}},
                              {"weight_map", std::move(map)}};
  return WriteText(StrCat(directory, "/model.safetensors.index.json"),
                   DumpJson(index, 2) + "\n");
}

// Blocks of a quantized type, of normally distributed elements: drawn from some
// thousands that are made once. Thread-safe: immutable.
class BlockSource {
 public:
  BlockSource(WeightType type, const ElementSource& elements,
              const RandomModelOptions& options)
      : size_(static_cast<size_t>(InfoOf(type).bytes)),
        count_(InfoOf(type).elements > 32 ? 1 << 14 : 1 << 16),
        key_{static_cast<uint32_t>(options.seed),
             static_cast<uint32_t>(options.seed >> 32)},
        blocks_(count_ * size_) {
    constexpr size_t kAtOnce = 1024;
    const size_t floats = kAtOnce * static_cast<size_t>(InfoOf(type).elements);
    const auto make = [&](size_t i) {
      std::vector<float> values(floats);
      elements.Fill(TensorSpec(), kTableIndex, i * floats,
                    std::as_writable_bytes(std::span(values)));
      QuantizeRow(type, values.data(), std::ssize(values),
                  blocks_.data() + i * kAtOnce * size_);
      return absl::OkStatus();
    };
    ForEachParallel(count_ / kAtOnce, options.threads, make).IgnoreError();
  }

  // Blocks from the first on of tensor `index`; `first` a multiple of 8.
  void Fill(uint32_t index, uint64_t first, std::span<std::byte> out) const {
    std::array<uint32_t, 4> draw = {};
    for (size_t i = 0; i * size_ < out.size(); ++i) {
      const uint64_t group = (first + i) / 8;
      if (i % 8 == 0) {
        draw = sampling::Philox4x32(
            {static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32),
             index, kPurpose},
            key_);
      }
      const size_t block = (draw[i % 8 / 2] >> (16 * (i % 2))) % count_;
      std::memcpy(out.data() + i * size_, blocks_.data() + block * size_,
                  size_);
    }
  }

 private:
  static constexpr uint32_t kPurpose = 0x626c6b73;     // of the draws
  static constexpr uint32_t kTableIndex = 0xffffffff;  // no tensor's

  const size_t size_;
  const size_t count_;
  const sampling::PhiloxKey key_;
  std::vector<std::byte> blocks_;
};

// All elements of a GGUF file.
class GgufSource {
 public:
  GgufSource(const GgufPlan& plan, const RandomModelOptions& options) {
    const ElementSource floats(DType::kFp32, options.seed);
    for (const PlannedTensor& tensor : plan.tensors) {
      if (const auto dtype = PlainDType(tensor.type)) {
        plain_.try_emplace(tensor.type, *dtype, options.seed);
      } else {
        blocks_.try_emplace(tensor.type, tensor.type, floats, options);
      }
    }
  }

  // `first` counts blocks.
  void Fill(const PlannedTensor& tensor, uint32_t index, uint64_t first,
            std::span<std::byte> out) const {
    if (IsPlain(tensor.type)) {
      plain_.at(tensor.type).Fill(tensor.spec, index, first, out);
    } else {
      blocks_.at(tensor.type).Fill(index, first, out);
    }
  }

 private:
  std::map<WeightType, ElementSource> plain_;
  std::map<WeightType, BlockSource> blocks_;
};

// Some blocks of one tensor.
struct GgufPiece {
  size_t tensor = 0;  // index
  uint64_t first = 0;
  uint64_t count = 0;
};

std::vector<GgufPiece> PiecesOf(const GgufPlan& plan) {
  constexpr uint64_t kPieceBlocks = 1 << 15;
  std::vector<GgufPiece> pieces;
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const PlannedTensor& tensor = plan.tensors[i];
    const uint64_t blocks = tensor.bytes / InfoOf(tensor.type).bytes;
    for (uint64_t first = 0; first < blocks; first += kPieceBlocks) {
      pieces.push_back({i, first, std::min(kPieceBlocks, blocks - first)});
    }
  }
  return pieces;
}

absl::Status WriteGguf(const std::string& directory, const ModelConfig& config,
                       const RandomModelOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const GgufPlan plan,
                           PlanGguf(config, *options.block_type, directory));
  const GgufSource source(plan, options);
  CARAVAN_ASSIGN_OR_RETURN(
      OutputFile file,
      OutputFile::Create(StrCat(directory, "/model.gguf"), plan.bytes));
  CARAVAN_RETURN_IF_ERROR(
      file.WriteAt(0, std::as_bytes(std::span(plan.header))));
  CARAVAN_RETURN_IF_ERROR(file.WriteAt(
      plan.rope_divisors_offset, std::as_bytes(std::span(plan.rope_divisors))));
  const std::vector<GgufPiece> pieces = PiecesOf(plan);
  const auto write = [&](size_t i) {
    const GgufPiece& piece = pieces[i];
    const PlannedTensor& tensor = plan.tensors[piece.tensor];
    const uint64_t size = static_cast<uint64_t>(InfoOf(tensor.type).bytes);
    std::vector<std::byte> bytes(piece.count * size);
    source.Fill(tensor, static_cast<uint32_t>(piece.tensor), piece.first,
                bytes);
    return file.WriteAt(tensor.offset + piece.first * size, bytes);
  };
  CARAVAN_RETURN_IF_ERROR(
      ForEachParallel(pieces.size(), options.threads, write));
  return file.Close();
}

absl::Status WriteTexts(const std::string& directory, const Shape& shape,
                        std::string_view config) {
  const ordered_json generation = {
      {"bos_token_id", RandomBosId(shape.vocab)},
      {"eos_token_id", ordered_json::array({RandomEndOfTextId(shape.vocab),
                                            RandomEndOfTurnId(shape.vocab)})},
      {"do_sample", true}};
  CARAVAN_RETURN_IF_ERROR(WriteText(StrCat(directory, "/config.json"), config));
  CARAVAN_RETURN_IF_ERROR(
      WriteText(StrCat(directory, "/generation_config.json"),
                DumpJson(generation, 2) + "\n"));
  CARAVAN_RETURN_IF_ERROR(WriteText(StrCat(directory, "/tokenizer.json"),
                                    RandomTokenizerJson(shape.vocab)));
  return WriteText(StrCat(directory, "/tokenizer_config.json"),
                   RandomTokenizerConfigJson());
}

absl::Status PrepareDirectory(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return FieldError("OUT", "a directory that can be made",
                      StrCat(directory, ": ", error.message()));
  }
  if (std::filesystem::is_empty(directory, error)) return absl::OkStatus();
  return FieldError("OUT", "an empty directory", directory);
}

}  // namespace

std::vector<std::string_view> RandomModelShapes() {
  std::vector<std::string_view> names;
  for (const Shape& shape : kShapes) names.push_back(shape.name);
  return names;
}

absl::StatusOr<std::string> ShapeConfig(std::string_view shape, DType dtype) {
  CARAVAN_ASSIGN_OR_RETURN(const Shape found, FindShape(shape));
  return DumpJson(ConfigOf(found, dtype), 2) + "\n";
}

absl::Status WriteRandomModel(const std::string& directory,
                              const RandomModelOptions& options) {
  if (options.threads < 1 || options.threads > 256) {
    return FieldError("--threads", "in [1, 256]", StrCat(options.threads));
  }
  if (options.block_type && !CanQuantize(*options.block_type)) {
    return FieldError("--type", "a type that is written",
                      Name(*options.block_type));
  }
  CARAVAN_ASSIGN_OR_RETURN(const Shape shape, FindShape(options.shape));
  CARAVAN_ASSIGN_OR_RETURN(const std::string text,
                           ShapeConfig(options.shape, options.dtype));
  CARAVAN_ASSIGN_OR_RETURN(const ModelConfig config,
                           ParseModelConfig(text, "config.json", {}));
  CARAVAN_RETURN_IF_ERROR(PrepareDirectory(directory));
  CARAVAN_RETURN_IF_ERROR(WriteTexts(directory, shape, text));
  if (options.block_type) return WriteGguf(directory, config, options);
  return WriteWeights(directory, AllTensors(MakeLayout(config)), options);
}

}  // namespace caravan::worker
