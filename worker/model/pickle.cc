#include "worker/model/pickle.h"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <unordered_map>
#include <utility>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"

namespace caravan::worker {
namespace {

// What calling a global does.
enum class Callable : uint8_t {
  kNothing,  // it is only named
  kOrderedDict,
  kTensor,     // torch._utils._rebuild_tensor, _rebuild_tensor_v2
  kParameter,  // torch._utils._rebuild_parameter
};

struct KnownGlobal {
  std::string_view module;
  std::string_view name;
  std::string_view full;
  Callable callable;
};

constexpr std::array<KnownGlobal, 14> kGlobals = {{
    {"collections", "OrderedDict", "collections.OrderedDict",
     Callable::kOrderedDict},
    {"torch._utils", "_rebuild_tensor", "torch._utils._rebuild_tensor",
     Callable::kTensor},
    {"torch._utils", "_rebuild_tensor_v2", "torch._utils._rebuild_tensor_v2",
     Callable::kTensor},
    {"torch._utils", "_rebuild_parameter", "torch._utils._rebuild_parameter",
     Callable::kParameter},
    {"torch", "FloatStorage", "torch.FloatStorage", Callable::kNothing},
    {"torch", "HalfStorage", "torch.HalfStorage", Callable::kNothing},
    {"torch", "BFloat16Storage", "torch.BFloat16Storage", Callable::kNothing},
    {"torch", "DoubleStorage", "torch.DoubleStorage", Callable::kNothing},
    {"torch", "LongStorage", "torch.LongStorage", Callable::kNothing},
    {"torch", "IntStorage", "torch.IntStorage", Callable::kNothing},
    {"torch", "ShortStorage", "torch.ShortStorage", Callable::kNothing},
    {"torch", "CharStorage", "torch.CharStorage", Callable::kNothing},
    {"torch", "ByteStorage", "torch.ByteStorage", Callable::kNothing},
    {"torch", "BoolStorage", "torch.BoolStorage", Callable::kNothing},
}};

enum Op : uint8_t {
  kMark = '(',
  kStop = '.',
  kBinFloat = 'G',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kEmptyList = ']',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kEmptyTuple = ')',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

struct RefusedOp {
  uint8_t code;
  std::string_view name;
};

// The rest of the format, for messages.
constexpr std::array<RefusedOp, 30> kRefused = {{
    {'0', "POP"},
    {'1', "POP_MARK"},
    {'2', "DUP"},
    {'B', "BINBYTES"},
    {'C', "SHORT_BINBYTES"},
    {'F', "FLOAT"},
    {'I', "INT"},
    {'L', "LONG"},
    {'P', "PERSID"},
    {'S', "STRING"},
    {'V', "UNICODE"},
    {'d', "DICT"},
    {'g', "GET"},
    {'i', "INST"},
    {'l', "LIST"},
    {'o', "OBJ"},
    {'p', "PUT"},
    {0x81, "NEWOBJ"},
    {0x82, "EXT1"},
    {0x83, "EXT2"},
    {0x84, "EXT4"},
    {0x8b, "LONG4"},
    {0x8e, "BINBYTES8"},
    {0x8f, "EMPTY_SET"},
    {0x90, "ADDITEMS"},
    {0x91, "FROZENSET"},
    {0x92, "NEWOBJ_EX"},
    {0x96, "BYTEARRAY8"},
    {0x97, "NEXT_BUFFER"},
    {0x98, "READONLY_BUFFER"},
}};

std::string OpName(uint8_t code) {
  for (const RefusedOp& op : kRefused) {
    if (op.code == code) return StrCat(op.name);
  }
  return StrCat("opcode ", static_cast<int>(code));
}

const KnownGlobal* FindGlobal(std::string_view module, std::string_view name) {
  for (const KnownGlobal& global : kGlobals) {
    if (global.module == module && global.name == name) return &global;
  }
  return nullptr;
}

// A text of a hostile file, fit for a message.
std::string Shown(std::string_view text) {
  constexpr size_t kMost = 60;
  std::string shown;
  for (const char c : text.substr(0, kMost)) {
    shown += c >= ' ' && c <= '~' ? c : '?';
  }
  return text.size() > kMost ? shown + "..." : shown;
}

// The machine: a stack of values, marks in it, and a memo.
class Machine {
 public:
  Machine(std::span<const std::byte> bytes, const std::string& file,
          uint64_t base)
      : bytes_(bytes), file_(file), base_(base) {}

  absl::StatusOr<Pickle> Run();

 private:
  // Each runs the opcode if it is one of its own, and says whether it was.
  absl::StatusOr<bool> RunConstant(uint8_t op);
  absl::StatusOr<bool> RunText(uint8_t op);
  absl::StatusOr<bool> RunContainer(uint8_t op);
  absl::StatusOr<bool> RunMemo(uint8_t op);
  absl::StatusOr<bool> RunCall(uint8_t op);
  absl::Status RunOne(uint8_t op);

  absl::Status LongInteger();
  absl::Status Text(uint64_t length);
  absl::Status GlobalLines();
  absl::Status StackGlobal();
  absl::Status PushGlobal(std::string_view module, std::string_view name);
  absl::Status Tuple(size_t count);
  absl::Status TupleFromMark();
  absl::Status Extend(PickleKind kind, bool from_mark);
  absl::Status Remember(uint64_t slot);
  absl::Status Recall(uint64_t slot);
  absl::Status PersistentId();
  absl::Status Reduce();
  absl::Status Build();
  absl::Status RebuildTensor(const PickleValue& arguments);
  absl::Status RebuildParameter(const PickleValue& arguments);

  absl::Status Push(PickleValue value);
  absl::Status PushNumber(PickleKind kind, int64_t number) {
    return Push({.kind = kind, .number = number, .text = {}, .items = {}});
  }
  absl::Status PushEmpty(PickleKind kind) { return PushNumber(kind, 0); }
  // How many values lie above the last mark, or in all.
  size_t Above() const {
    return stack_.size() - (marks_.empty() ? 0 : marks_.back());
  }
  absl::StatusOr<PickleIndex> Pop();
  absl::StatusOr<PickleIndex> PopOf(PickleKind kind, std::string_view what);
  // The values above the last mark, which goes too.
  absl::StatusOr<std::vector<PickleIndex>> PopToMark();
  absl::StatusOr<uint64_t> Number(size_t width);
  absl::StatusOr<std::string_view> Line();
  absl::Status Error(std::string_view what, std::string_view limit,
                     std::string_view value) const {
    return ModelFileError(
        file_, StrCat("pickle at offset ", base_ + op_at_, ": ", what), limit,
        value);
  }

  const std::span<const std::byte> bytes_;
  const std::string& file_;
  const uint64_t base_;
  size_t at_ = 0;     // next byte
  size_t op_at_ = 0;  // the current opcode
  std::vector<PickleValue> values_;
  std::vector<PickleIndex> stack_;
  std::vector<size_t> marks_;  // sizes of the stack when they were set
  std::unordered_map<uint64_t, PickleIndex> memo_;
};

absl::Status Machine::Push(PickleValue value) {
  if (values_.size() >= kMostPickleValues) {
    return Error("values", StrCat("at most ", kMostPickleValues), "more");
  }
  stack_.push_back(static_cast<PickleIndex>(values_.size()));
  values_.push_back(std::move(value));
  return absl::OkStatus();
}

absl::StatusOr<PickleIndex> Machine::Pop() {
  if (Above() == 0) return Error("stack", "a value", "empty");
  const PickleIndex index = stack_.back();
  stack_.pop_back();
  return index;
}

absl::StatusOr<PickleIndex> Machine::PopOf(PickleKind kind,
                                           std::string_view what) {
  CARAVAN_ASSIGN_OR_RETURN(const PickleIndex index, Pop());
  if (values_[index].kind == kind) return index;
  return Error(what, Name(kind), Name(values_[index].kind));
}

absl::StatusOr<std::vector<PickleIndex>> Machine::PopToMark() {
  if (marks_.empty()) return Error("stack", "a mark", "none");
  const auto first = stack_.begin() + static_cast<ptrdiff_t>(marks_.back());
  std::vector<PickleIndex> items(first, stack_.end());
  stack_.erase(first, stack_.end());
  marks_.pop_back();
  return items;
}

absl::StatusOr<uint64_t> Machine::Number(size_t width) {
  if (bytes_.size() - at_ < width) return Error("argument", "whole", "cut off");
  uint64_t value = 0;
  for (size_t i = 0; i < width; ++i) {
    value |= std::to_integer<uint64_t>(bytes_[at_++]) << (8 * i);
  }
  return value;
}

absl::StatusOr<std::string_view> Machine::Line() {
  const std::string_view rest(
      reinterpret_cast<const char*>(bytes_.data()) + at_, bytes_.size() - at_);
  const size_t length = rest.find('\n');
  if (length == std::string_view::npos) {
    return Error("line", "ended by a line feed", "cut off");
  }
  at_ += length + 1;
  return rest.substr(0, length);
}

absl::Status Machine::LongInteger() {
  CARAVAN_ASSIGN_OR_RETURN(const uint64_t width, Number(1));
  if (width > sizeof(uint64_t)) {
    return Error("LONG1", "of at most 8 bytes", StrCat(width));
  }
  CARAVAN_ASSIGN_OR_RETURN(uint64_t value, Number(width));
  const int unused = static_cast<int>(64 - 8 * width);
  if (width > 0) {  // sign-extended
    value =
        static_cast<uint64_t>(static_cast<int64_t>(value << unused) >> unused);
  }
  return PushNumber(PickleKind::kInt, static_cast<int64_t>(value));
}

absl::StatusOr<bool> Machine::RunConstant(uint8_t op) {
  switch (op) {
    case kNone:
      CARAVAN_RETURN_IF_ERROR(PushEmpty(PickleKind::kNone));
      return true;
    case kNewTrue:
    case kNewFalse:
      CARAVAN_RETURN_IF_ERROR(PushNumber(PickleKind::kBool, op == kNewTrue));
      return true;
    case kBinInt:
    case kBinInt1:
    case kBinInt2: {
      const size_t width = op == kBinInt ? 4 : (op == kBinInt1 ? 1 : 2);
      CARAVAN_ASSIGN_OR_RETURN(const uint64_t bits, Number(width));
      const int64_t value = op == kBinInt ? static_cast<int32_t>(bits)
                                          : static_cast<int64_t>(bits);
      CARAVAN_RETURN_IF_ERROR(PushNumber(PickleKind::kInt, value));
      return true;
    }
    case kLong1:
      CARAVAN_RETURN_IF_ERROR(LongInteger());
      return true;
    case kBinFloat:  // read over: no tensor needs its value
      CARAVAN_RETURN_IF_ERROR(Number(8).status());
      CARAVAN_RETURN_IF_ERROR(PushEmpty(PickleKind::kFloat));
      return true;
    default:
      return false;
  }
}

absl::Status Machine::Text(uint64_t length) {
  if (length > bytes_.size() - at_) {
    return Error("text", StrCat("inside the ", bytes_.size(), " bytes"),
                 StrCat(length, " bytes"));
  }
  const std::string_view text(
      reinterpret_cast<const char*>(bytes_.data()) + at_, length);
  at_ += length;
  return Push(
      {.kind = PickleKind::kText, .number = 0, .text = text, .items = {}});
}

absl::StatusOr<bool> Machine::RunText(uint8_t op) {
  size_t width = 0;
  switch (op) {
    case kShortBinUnicode:
    case kShortBinString:
      width = 1;
      break;
    case kBinUnicode:
    case kBinString:
      width = 4;
      break;
    case kBinUnicode8:
      width = 8;
      break;
    default:
      return false;
  }
  CARAVAN_ASSIGN_OR_RETURN(const uint64_t length, Number(width));
  CARAVAN_RETURN_IF_ERROR(Text(length));
  return true;
}

absl::Status Machine::Tuple(size_t count) {
  if (Above() < count) {
    return Error("stack", StrCat(count, " values"), StrCat(Above()));
  }
  PickleValue tuple;
  tuple.kind = PickleKind::kTuple;
  tuple.items.assign(stack_.end() - static_cast<ptrdiff_t>(count),
                     stack_.end());
  stack_.resize(stack_.size() - count);
  return Push(std::move(tuple));
}

absl::Status Machine::TupleFromMark() {
  PickleValue tuple;
  tuple.kind = PickleKind::kTuple;
  CARAVAN_ASSIGN_OR_RETURN(tuple.items, PopToMark());
  return Push(std::move(tuple));
}

absl::Status Machine::Extend(PickleKind kind, bool from_mark) {
  std::vector<PickleIndex> items;
  if (from_mark) {
    CARAVAN_ASSIGN_OR_RETURN(items, PopToMark());
  } else {
    for (size_t i = 0; i < (kind == PickleKind::kDict ? 2 : 1); ++i) {
      CARAVAN_ASSIGN_OR_RETURN(const PickleIndex item, Pop());
      items.insert(items.begin(), item);
    }
  }
  if (Above() == 0 || values_[stack_.back()].kind != kind) {
    return Error("target of items", Name(kind), "something else");
  }
  if (kind == PickleKind::kDict && items.size() % 2 != 0) {
    return Error("items of a dict", "pairs", StrCat(items.size()));
  }
  std::vector<PickleIndex>& target = values_[stack_.back()].items;
  target.insert(target.end(), items.begin(), items.end());
  return absl::OkStatus();
}

absl::StatusOr<bool> Machine::RunContainer(uint8_t op) {
  absl::Status done;
  switch (op) {
    case kMark:
      marks_.push_back(stack_.size());
      break;
    case kEmptyTuple:
      done = PushEmpty(PickleKind::kTuple);
      break;
    case kEmptyList:
      done = PushEmpty(PickleKind::kList);
      break;
    case kEmptyDict:
      done = PushEmpty(PickleKind::kDict);
      break;
    case kTuple1:
    case kTuple2:
    case kTuple3:
      done = Tuple(op - kTuple1 + 1u);
      break;
    case kTuple:
      done = TupleFromMark();
      break;
    case kAppend:
    case kAppends:
      done = Extend(PickleKind::kList, op == kAppends);
      break;
    case kSetItem:
    case kSetItems:
      done = Extend(PickleKind::kDict, op == kSetItems);
      break;
    default:
      return false;
  }
  CARAVAN_RETURN_IF_ERROR(done);
  return true;
}

absl::Status Machine::Remember(uint64_t slot) {
  if (Above() == 0) return Error("stack", "a value", "empty");
  if (memo_.size() >= kMostPickleValues) {
    return Error("memo", StrCat("at most ", kMostPickleValues), "more");
  }
  memo_[slot] = stack_.back();
  return absl::OkStatus();
}

absl::Status Machine::Recall(uint64_t slot) {
  const auto found = memo_.find(slot);
  if (found == memo_.end()) {
    return Error("memo", "a slot that was set", StrCat(slot));
  }
  if (stack_.size() >= kMostPickleValues) {
    return Error("stack", StrCat("at most ", kMostPickleValues), "more");
  }
  stack_.push_back(found->second);
  return absl::OkStatus();
}

absl::StatusOr<bool> Machine::RunMemo(uint8_t op) {
  if (op == kMemoize) {
    CARAVAN_RETURN_IF_ERROR(Remember(memo_.size()));
    return true;
  }
  const bool put = op == kBinPut || op == kLongBinPut;
  if (!put && op != kBinGet && op != kLongBinGet) return false;
  const size_t width = op == kBinPut || op == kBinGet ? 1 : 4;
  CARAVAN_ASSIGN_OR_RETURN(const uint64_t slot, Number(width));
  CARAVAN_RETURN_IF_ERROR(put ? Remember(slot) : Recall(slot));
  return true;
}

absl::Status Machine::PushGlobal(std::string_view module,
                                 std::string_view name) {
  const KnownGlobal* const global = FindGlobal(module, name);
  if (global == nullptr) {
    return Error("global",
                 "one that tensors need (nothing of a pickle is executed)",
                 StrCat(Shown(module), ".", Shown(name)));
  }
  return Push({.kind = PickleKind::kGlobal,
               .number = static_cast<int64_t>(global->callable),
               .text = global->full,
               .items = {}});
}

absl::Status Machine::GlobalLines() {
  CARAVAN_ASSIGN_OR_RETURN(const std::string_view module, Line());
  CARAVAN_ASSIGN_OR_RETURN(const std::string_view name, Line());
  return PushGlobal(module, name);
}

absl::Status Machine::StackGlobal() {
  CARAVAN_ASSIGN_OR_RETURN(const PickleIndex name,
                           PopOf(PickleKind::kText, "global's name"));
  CARAVAN_ASSIGN_OR_RETURN(const PickleIndex module,
                           PopOf(PickleKind::kText, "global's module"));
  return PushGlobal(values_[module].text, values_[name].text);
}

// ('storage', class, key, location, element count[, view])
absl::Status Machine::PersistentId() {
  CARAVAN_ASSIGN_OR_RETURN(const PickleIndex index,
                           PopOf(PickleKind::kTuple, "persistent id"));
  const std::vector<PickleIndex>& id = values_[index].items;
  const auto is = [&](size_t i, PickleKind kind) {
    return values_[id[i]].kind == kind;
  };
  if ((id.size() != 5 && id.size() != 6) || !is(0, PickleKind::kText) ||
      values_[id[0]].text != "storage" || !is(1, PickleKind::kGlobal) ||
      !is(2, PickleKind::kText) || !is(4, PickleKind::kInt)) {
    return Error("persistent id",
                 "('storage', class, key, location, element count)",
                 StrCat("another tuple of ", id.size()));
  }
  PickleValue storage;
  storage.kind = PickleKind::kStorage;
  storage.items.assign(id.begin() + 1, id.end());
  return Push(std::move(storage));
}

absl::Status Machine::RebuildTensor(const PickleValue& arguments) {
  const auto is = [&](size_t i, PickleKind kind) {
    return values_[arguments.items[i]].kind == kind;
  };
  if (arguments.items.size() < 4 || !is(0, PickleKind::kStorage) ||
      !is(1, PickleKind::kInt) || !is(2, PickleKind::kTuple) ||
      !is(3, PickleKind::kTuple)) {
    return Error("arguments of a tensor",
                 "(storage, offset, sizes, strides, ...)", "others");
  }
  PickleValue tensor;
  tensor.kind = PickleKind::kTensor;
  tensor.items.assign(arguments.items.begin(), arguments.items.begin() + 4);
  return Push(std::move(tensor));
}

// A parameter is its tensor.
absl::Status Machine::RebuildParameter(const PickleValue& arguments) {
  if (arguments.items.empty() ||
      values_[arguments.items[0]].kind != PickleKind::kTensor) {
    return Error("arguments of a parameter", "(tensor, ...)", "others");
  }
  stack_.push_back(arguments.items[0]);
  return absl::OkStatus();
}

absl::Status Machine::Reduce() {
  CARAVAN_ASSIGN_OR_RETURN(const PickleIndex index,
                           PopOf(PickleKind::kTuple, "arguments"));
  CARAVAN_ASSIGN_OR_RETURN(const PickleIndex function,
                           PopOf(PickleKind::kGlobal, "callable"));
  const PickleValue& arguments = values_[index];
  switch (static_cast<Callable>(values_[function].number)) {
    case Callable::kOrderedDict:
      if (!arguments.items.empty()) {
        return Error("arguments of OrderedDict", "()", "some");
      }
      return PushEmpty(PickleKind::kDict);
    case Callable::kTensor:
      return RebuildTensor(arguments);
    case Callable::kParameter:
      return RebuildParameter(arguments);
    case Callable::kNothing:
      break;
  }
  return Error("callable", "a rebuilder of tensors or OrderedDict",
               values_[function].text);
}

// The state of a dict or tensor, such as _metadata, means nothing here.
absl::Status Machine::Build() {
  CARAVAN_RETURN_IF_ERROR(Pop().status());
  if (Above() == 0) return Error("stack", "a value", "empty");
  const PickleKind target = values_[stack_.back()].kind;
  if (target == PickleKind::kDict || target == PickleKind::kTensor) {
    return absl::OkStatus();
  }
  return Error("target of BUILD", "a dict or tensor", Name(target));
}

absl::StatusOr<bool> Machine::RunCall(uint8_t op) {
  absl::Status done;
  switch (op) {
    case kGlobal:
      done = GlobalLines();
      break;
    case kStackGlobal:
      done = StackGlobal();
      break;
    case kBinPersId:
      done = PersistentId();
      break;
    case kReduce:
      done = Reduce();
      break;
    case kBuild:
      done = Build();
      break;
    case kProto:
      done = Number(1).status();
      break;
    case kFrame:
      done = Number(8).status();
      break;
    default:
      return false;
  }
  CARAVAN_RETURN_IF_ERROR(done);
  return true;
}

absl::Status Machine::RunOne(uint8_t op) {
  for (const auto run :
       {&Machine::RunConstant, &Machine::RunText, &Machine::RunContainer,
        &Machine::RunMemo, &Machine::RunCall}) {
    CARAVAN_ASSIGN_OR_RETURN(const bool known, (this->*run)(op));
    if (known) return absl::OkStatus();
  }
  return Error("opcode", "one that tensors need", OpName(op));
}

absl::StatusOr<Pickle> Machine::Run() {
  while (at_ < bytes_.size()) {
    op_at_ = at_;
    if (at_ >= kMostPickleBytes) {
      return Error("size", StrCat("at most ", kMostPickleBytes, " bytes"),
                   "more");
    }
    const uint8_t op = std::to_integer<uint8_t>(bytes_[at_++]);
    if (op != kStop) {
      CARAVAN_RETURN_IF_ERROR(RunOne(op));
      continue;
    }
    Pickle pickle;
    CARAVAN_ASSIGN_OR_RETURN(pickle.root, Pop());
    pickle.bytes = at_;
    pickle.values = std::move(values_);
    return pickle;
  }
  op_at_ = at_;
  return Error("opcode", "STOP before the end", "nothing");
}

}  // namespace

std::string_view Name(PickleKind kind) {
  constexpr std::array<std::string_view, 11> kNames = {
      "none", "bool", "integer", "float",   "text",  "tuple",
      "list", "dict", "global",  "storage", "tensor"};
  return kNames[static_cast<size_t>(kind)];
}

absl::StatusOr<Pickle> ParsePickle(std::span<const std::byte> bytes,
                                   const std::string& file, uint64_t base) {
  return Machine(bytes, file, base).Run();
}

}  // namespace caravan::worker
