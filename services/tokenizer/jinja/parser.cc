#include "services/tokenizer/jinja/parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <string>
#include <utility>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/tokenizer/jinja/lexer.h"

namespace caravan::jinja {
namespace {

constexpr int kMaxDepth = 100;
constexpr int kMaxChain = 500;

ExpressionPtr Make(ExpressionKind kind, int line, std::string name = "") {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  node->name = std::move(name);
  return node;
}

ExpressionPtr MakeLiteral(int line, Value value) {
  ExpressionPtr node = Make(ExpressionKind::kLiteral, line);
  node->literal = std::move(value);
  return node;
}

// Expressions, by descent in Jinja's order of precedence.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens)
      : tokens_(std::move(tokens)) {}

 protected:
  using Result = absl::StatusOr<ExpressionPtr>;

  const Token& token() const { return tokens_[position_]; }
  const Token& next_token() const {
    return tokens_[std::min(position_ + 1, tokens_.size() - 1)];
  }
  int line() const { return token().line; }
  void Skip() {
    if (position_ + 1 < tokens_.size()) ++position_;
  }
  Token Take() {
    Token taken = token();
    Skip();
    return taken;
  }
  bool AtOperator(std::string_view op) const {
    return token().type == TokenType::kOperator && token().text == op;
  }
  bool AtName(std::string_view name) const {
    return token().type == TokenType::kName && token().text == name;
  }
  bool AtEndOfTag() const {
    return token().type == TokenType::kBlockEnd ||
           token().type == TokenType::kVariableEnd;
  }
  bool SkipOperator(std::string_view op) {
    if (!AtOperator(op)) return false;
    Skip();
    return true;
  }
  bool SkipName(std::string_view name) {
    if (!AtName(name)) return false;
    Skip();
    return true;
  }
  absl::Status Error(std::string_view what) const {
    return ErrorAtLine(line(), what);
  }
  absl::Status Expected(std::string_view what) const {
    return Error(StrCat("expected ", what, "; got ", Describe(token())));
  }
  absl::Status ExpectOperator(std::string_view op) {
    if (SkipOperator(op)) return absl::OkStatus();
    return Expected(StrCat("'", op, "'"));
  }
  absl::StatusOr<std::string> ExpectName() {
    if (token().type != TokenType::kName) return Expected("a name");
    return Take().text;
  }

  static std::string Describe(const Token& token) {
    switch (token.type) {
      case TokenType::kEnd:
        return "the end of the template";
      case TokenType::kBlockEnd:
      case TokenType::kVariableEnd:
        return "the end of the tag";
      default:
        return StrCat("'", token.text, "'");
    }
  }

  Result ParseExpression() { return ParseConditional(/*with_if=*/true); }

  // Counts how deep the parser is; every recursion passes here.
  class Depth {
   public:
    explicit Depth(int* depth) : depth_(depth) { ++*depth_; }
    ~Depth() { --*depth_; }
    bool too_deep() const { return *depth_ > kMaxDepth; }

   private:
    int* depth_;
  };

  Result ParseConditional(bool with_if) {
    const Depth depth(&depth_);
    if (depth.too_deep()) return TooDeep();
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
    while (with_if && AtName("if")) {
      ExpressionPtr node = Make(ExpressionKind::kConditional, line());
      Skip();
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
      ExpressionPtr otherwise;
      if (SkipName("else")) {
        CARAVAN_ASSIGN_OR_RETURN(otherwise, ParseConditional(with_if));
      }
      node->children.push_back(std::move(condition));
      node->children.push_back(std::move(value));
      node->children.push_back(std::move(otherwise));
      value = std::move(node);
    }
    return value;
  }

  // Expressions separated by commas make a tuple.
  Result ParseTuple(bool with_if) {
    const int at = line();
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr first, ParseConditional(with_if));
    if (!AtOperator(",")) return first;
    ExpressionPtr tuple = Make(ExpressionKind::kTuple, at);
    tuple->children.push_back(std::move(first));
    while (SkipOperator(",")) {
      if (AtEndOfTag() || AtOperator(")") || AtName("recursive")) break;
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr next, ParseConditional(with_if));
      tuple->children.push_back(std::move(next));
    }
    return tuple;
  }

  absl::Status TooDeep() const {
    return Error(StrCat("nests more than ", kMaxDepth, " deep"));
  }

  // Operators and filters in a row make trees that are deep on one side.
  absl::Status CountChain() {
    if (++chain_ <= kMaxChain) return absl::OkStatus();
    return Error(StrCat("has more than ", kMaxChain, " operators in one tag"));
  }

  Result ParsePostfix(ExpressionPtr node) {
    while (true) {
      CARAVAN_RETURN_IF_ERROR(CountChain());
      if (AtOperator(".") || AtOperator("[")) {
        CARAVAN_ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
      } else if (AtOperator("(")) {
        CARAVAN_ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
      } else {
        return node;
      }
    }
  }

  Result ParseFilters(ExpressionPtr node) {
    while (true) {
      if (AtOperator("|")) {
        CARAVAN_ASSIGN_OR_RETURN(node, ParseFilter(std::move(node)));
      } else if (AtName("is")) {
        CARAVAN_ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
      } else if (AtOperator("(")) {
        CARAVAN_ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
      } else {
        return node;
      }
    }
  }

  Result ParsePrimary() {
    const Token current = token();
    switch (current.type) {
      case TokenType::kName:
        Skip();
        return ParseNameOrConstant(current);
      case TokenType::kString:
        return ParseString();
      case TokenType::kInteger:
      case TokenType::kFloat:
        Skip();
        return ParseNumber(current);
      default:
        break;
    }
    if (AtOperator("(")) return ParseParentheses();
    if (AtOperator("[")) return ParseList();
    if (AtOperator("{")) return ParseDict();
    return Expected("an expression");
  }

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int depth_ = 0;
  int chain_ = 0;  // in the current tag

 private:
  Result ParseOr() {
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr left, ParseAnd());
    while (AtName("or")) {
      CARAVAN_RETURN_IF_ERROR(
          Extend(ExpressionKind::kOr, &left, [&] { return ParseAnd(); }));
    }
    return left;
  }

  Result ParseAnd() {
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr left, ParseNot());
    while (AtName("and")) {
      CARAVAN_RETURN_IF_ERROR(
          Extend(ExpressionKind::kAnd, &left, [&] { return ParseNot(); }));
    }
    return left;
  }

  // left = (left, operator, what `parse` gives); the operator is the current
  // token.
  template <typename Parse>
  absl::Status Extend(ExpressionKind kind, ExpressionPtr* left, Parse parse) {
    const Token op = Take();
    ExpressionPtr node = Make(kind, op.line, op.text);
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr right, parse());
    node->children.push_back(std::move(*left));
    node->children.push_back(std::move(right));
    *left = std::move(node);
    // Left-deep trees are evaluated by recursion.
    return CountChain();
  }

  Result ParseNot() {
    if (!AtName("not")) return ParseCompare();
    const Depth depth(&depth_);
    if (depth.too_deep()) return TooDeep();
    ExpressionPtr node = Make(ExpressionKind::kNot, line());
    Skip();
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
    node->children.push_back(std::move(operand));
    return node;
  }

  // The comparison at the current token, or empty; takes it.
  std::string TakeComparison() {
    for (const std::string_view op : {"==", "!=", "<", "<=", ">", ">="}) {
      if (SkipOperator(op)) return std::string(op);
    }
    if (SkipName("in")) return "in";
    if (AtName("not") && next_token().type == TokenType::kName &&
        next_token().text == "in") {
      Skip();
      Skip();
      return "not in";
    }
    return "";
  }

  Result ParseCompare() {
    const int at = line();
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
    std::string op = TakeComparison();
    if (op.empty()) return first;
    ExpressionPtr node = Make(ExpressionKind::kCompare, at);
    node->children.push_back(std::move(first));
    while (!op.empty()) {
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr next, ParseSum());
      node->children.push_back(std::move(next));
      node->operators.push_back(std::move(op));
      op = TakeComparison();
    }
    return node;
  }

  Result ParseSum() {
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr left, ParseConcat());
    while (AtOperator("+") || AtOperator("-")) {
      CARAVAN_RETURN_IF_ERROR(Extend(ExpressionKind::kBinary, &left,
                                     [&] { return ParseConcat(); }));
    }
    return left;
  }

  Result ParseConcat() {
    const int at = line();
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr first, ParseProduct());
    if (!AtOperator("~")) return first;
    ExpressionPtr node = Make(ExpressionKind::kConcat, at);
    node->children.push_back(std::move(first));
    while (SkipOperator("~")) {
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr next, ParseProduct());
      node->children.push_back(std::move(next));
    }
    return node;
  }

  Result ParseProduct() {
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr left, ParsePower());
    while (AtOperator("*") || AtOperator("/") || AtOperator("//") ||
           AtOperator("%")) {
      CARAVAN_RETURN_IF_ERROR(
          Extend(ExpressionKind::kBinary, &left, [&] { return ParsePower(); }));
    }
    return left;
  }

  Result ParsePower() {
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr left, ParseUnary(true));
    while (AtOperator("**")) {
      CARAVAN_RETURN_IF_ERROR(Extend(ExpressionKind::kBinary, &left,
                                     [&] { return ParseUnary(true); }));
    }
    return left;
  }

  Result ParseUnary(bool with_filter) {
    const Depth depth(&depth_);
    if (depth.too_deep()) return TooDeep();
    ExpressionPtr node;
    if (AtOperator("-") || AtOperator("+")) {
      const Token op = Take();
      node = Make(op.text == "-" ? ExpressionKind::kNegative
                                 : ExpressionKind::kPositive,
                  op.line);
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseUnary(false));
      node->children.push_back(std::move(operand));
    } else {
      CARAVAN_ASSIGN_OR_RETURN(node, ParsePrimary());
    }
    CARAVAN_ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
    if (with_filter) return ParseFilters(std::move(node));
    return node;
  }

  Result ParseNameOrConstant(const Token& name) {
    if (name.text == "true" || name.text == "True") {
      return MakeLiteral(name.line, Value(true));
    }
    if (name.text == "false" || name.text == "False") {
      return MakeLiteral(name.line, Value(false));
    }
    if (name.text == "none" || name.text == "None") {
      return MakeLiteral(name.line, Value::MakeNone());
    }
    return Make(ExpressionKind::kName, name.line, name.text);
  }

  // Neighbouring strings are one.
  Result ParseString() {
    const int at = line();
    std::string text;
    while (token().type == TokenType::kString) text += Take().text;
    return MakeLiteral(at, Value(Text(text, Origin::kTemplate)));
  }

  Result ParseNumber(const Token& number) {
    const char* const begin = number.text.data();
    const char* const end = begin + number.text.size();
    if (number.type == TokenType::kFloat) {
      double value = 0;
      if (std::from_chars(begin, end, value).ec != std::errc()) {
        return ErrorAtLine(number.line, "number is out of range");
      }
      return MakeLiteral(number.line, Value(value));
    }
    int64_t value = 0;
    if (std::from_chars(begin, end, value).ec != std::errc()) {
      return ErrorAtLine(number.line, "number is out of range");
    }
    return MakeLiteral(number.line, Value(value));
  }

  Result ParseParentheses() {
    const int at = line();
    Skip();
    if (SkipOperator(")")) return Make(ExpressionKind::kTuple, at);
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr inside, ParseTuple(true));
    CARAVAN_RETURN_IF_ERROR(ExpectOperator(")"));
    return inside;
  }

  Result ParseList() {
    ExpressionPtr list = Make(ExpressionKind::kList, line());
    Skip();
    while (!AtOperator("]")) {
      if (!list->children.empty()) {
        CARAVAN_RETURN_IF_ERROR(ExpectOperator(","));
        if (AtOperator("]")) break;
      }
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
      list->children.push_back(std::move(item));
    }
    Skip();
    return list;
  }

  Result ParseDict() {
    ExpressionPtr dict = Make(ExpressionKind::kDict, line());
    Skip();
    while (!AtOperator("}")) {
      if (!dict->children.empty()) {
        CARAVAN_RETURN_IF_ERROR(ExpectOperator(","));
        if (AtOperator("}")) break;
      }
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr key, ParseExpression());
      CARAVAN_RETURN_IF_ERROR(ExpectOperator(":"));
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      dict->children.push_back(std::move(key));
      dict->children.push_back(std::move(value));
    }
    Skip();
    return dict;
  }

  Result ParseSubscript(ExpressionPtr base) {
    const int at = line();
    if (SkipOperator(".")) {
      if (token().type == TokenType::kName) {
        ExpressionPtr node = Make(ExpressionKind::kAttribute, at, Take().text);
        node->children.push_back(std::move(base));
        return node;
      }
      if (token().type != TokenType::kInteger) return Expected("a name");
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr index, ParseNumber(Take()));
      ExpressionPtr node = Make(ExpressionKind::kItem, at);
      node->children.push_back(std::move(base));
      node->children.push_back(std::move(index));
      return node;
    }
    Skip();
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr node,
                             ParseIndexOrSlice(std::move(base), at));
    CARAVAN_RETURN_IF_ERROR(ExpectOperator("]"));
    return node;
  }

  Result ParseIndexOrSlice(ExpressionPtr base, int at) {
    ExpressionPtr first;
    if (!AtOperator(":")) {
      CARAVAN_ASSIGN_OR_RETURN(first, ParseExpression());
    }
    if (!AtOperator(":")) {
      ExpressionPtr item = Make(ExpressionKind::kItem, at);
      item->children.push_back(std::move(base));
      item->children.push_back(std::move(first));
      return item;
    }
    ExpressionPtr slice = Make(ExpressionKind::kSlice, at);
    slice->children.push_back(std::move(base));
    slice->children.push_back(std::move(first));
    while (slice->children.size() < 4) {
      ExpressionPtr bound;
      if (SkipOperator(":") && !AtOperator(":") && !AtOperator("]")) {
        CARAVAN_ASSIGN_OR_RETURN(bound, ParseExpression());
      }
      slice->children.push_back(std::move(bound));
    }
    return slice;
  }

  Result ParseCall(ExpressionPtr callee) {
    ExpressionPtr call = Make(ExpressionKind::kCall, line());
    call->children.push_back(std::move(callee));
    CARAVAN_RETURN_IF_ERROR(ParseArguments(call.get()));
    return call;
  }

  // "(a, b, c=d)", appended to the node.
  absl::Status ParseArguments(Expression* node) {
    CARAVAN_RETURN_IF_ERROR(ExpectOperator("("));
    bool first = true;
    while (!AtOperator(")")) {
      if (!first) {
        CARAVAN_RETURN_IF_ERROR(ExpectOperator(","));
        if (AtOperator(")")) break;
      }
      first = false;
      CARAVAN_RETURN_IF_ERROR(ParseArgument(node));
    }
    Skip();
    return absl::OkStatus();
  }

  absl::Status ParseArgument(Expression* node) {
    if (AtOperator("*") || AtOperator("**")) {
      return Error("unpacking of arguments is not supported");
    }
    const bool named = token().type == TokenType::kName &&
                       next_token().type == TokenType::kOperator &&
                       next_token().text == "=";
    if (named) {
      std::string name = Take().text;
      Skip();
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      node->named.emplace_back(std::move(name), std::move(value));
      return absl::OkStatus();
    }
    if (!node->named.empty()) {
      return Error("positional argument after a named one");
    }
    CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    node->children.push_back(std::move(value));
    return absl::OkStatus();
  }

  // "a.b" as one name.
  absl::StatusOr<std::string> ParseDottedName() {
    CARAVAN_ASSIGN_OR_RETURN(std::string name, ExpectName());
    while (SkipOperator(".")) {
      CARAVAN_ASSIGN_OR_RETURN(const std::string part, ExpectName());
      name += "." + part;
    }
    return name;
  }

  Result ParseFilter(ExpressionPtr input) {
    const int at = line();
    Skip();
    return ParseFilterName(std::move(input), at);
  }

 protected:
  // The name of a filter and its arguments; the input may be null.
  Result ParseFilterName(ExpressionPtr input, int at) {
    CARAVAN_ASSIGN_OR_RETURN(std::string name, ParseDottedName());
    ExpressionPtr filter = Make(ExpressionKind::kFilter, at, std::move(name));
    filter->children.push_back(std::move(input));
    if (AtOperator("(")) CARAVAN_RETURN_IF_ERROR(ParseArguments(filter.get()));
    CARAVAN_RETURN_IF_ERROR(CountChain());
    return filter;
  }

 private:
  Result ParseTest(ExpressionPtr input) {
    const int at = line();
    Skip();
    const bool negated = SkipName("not");
    CARAVAN_ASSIGN_OR_RETURN(std::string name, ParseDottedName());
    ExpressionPtr test = Make(ExpressionKind::kTest, at, std::move(name));
    test->children.push_back(std::move(input));
    if (AtOperator("(")) {
      CARAVAN_RETURN_IF_ERROR(ParseArguments(test.get()));
    } else if (BeginsTestArgument()) {
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
      CARAVAN_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
      test->children.push_back(std::move(argument));
    }
    if (!negated) return test;
    ExpressionPtr node = Make(ExpressionKind::kNot, at);
    node->children.push_back(std::move(test));
    return node;
  }

  // A test may have one argument without parentheses.
  bool BeginsTestArgument() const {
    switch (token().type) {
      case TokenType::kName:
        for (const char* const word :
             {"else", "or", "and", "is", "if", "in", "not", "recursive"}) {
          if (AtName(word)) return false;
        }
        return true;
      case TokenType::kString:
      case TokenType::kInteger:
      case TokenType::kFloat:
        return true;
      default:
        return AtOperator("[") || AtOperator("{");
    }
  }
};

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  absl::StatusOr<Body> Parse() {
    CARAVAN_ASSIGN_OR_RETURN(Body body, ParseBody({}));
    if (token().type != TokenType::kEnd) {
      return Expected("the end of the template");
    }
    return body;
  }

 private:
  using StatementPtr = std::unique_ptr<Statement>;
  using StatementResult = absl::StatusOr<StatementPtr>;

  static StatementPtr MakeStatement(StatementKind kind, int line) {
    auto node = std::make_unique<Statement>();
    node->kind = kind;
    node->line = line;
    return node;
  }

  // Statements up to a block that begins with one of `ends`, whose name is then
  // the current token; with none, up to the end of the template.
  absl::StatusOr<Body> ParseBody(std::initializer_list<std::string_view> ends) {
    const Depth depth(&depth_);
    if (depth.too_deep()) return TooDeep();
    Body body;
    while (token().type != TokenType::kEnd) {
      chain_ = 0;
      if (token().type == TokenType::kData) {
        StatementPtr data = MakeStatement(StatementKind::kData, line());
        data->text = Text(Take().text, Origin::kTemplate);
        body.push_back(std::move(data));
        continue;
      }
      if (token().type == TokenType::kVariableBegin) {
        CARAVAN_ASSIGN_OR_RETURN(StatementPtr output, ParseOutput());
        body.push_back(std::move(output));
        continue;
      }
      Skip();  // {%
      if (std::any_of(ends.begin(), ends.end(),
                      [&](std::string_view end) { return AtName(end); })) {
        return body;
      }
      CARAVAN_ASSIGN_OR_RETURN(StatementPtr statement, ParseStatement());
      body.push_back(std::move(statement));
    }
    if (ends.size() > 0) return Expected(StrCat("'", *ends.begin(), "'"));
    return body;
  }

  // The body and its closing tag.
  absl::StatusOr<Body> ParseBodyUntil(std::string_view end) {
    CARAVAN_RETURN_IF_ERROR(ExpectEndOfTag());
    CARAVAN_ASSIGN_OR_RETURN(Body body, ParseBody({end}));
    Skip();
    CARAVAN_RETURN_IF_ERROR(ExpectEndOfTag());
    return body;
  }

  absl::Status ExpectEndOfTag() {
    if (!AtEndOfTag()) return Expected("the end of the tag");
    Skip();
    return absl::OkStatus();
  }

  StatementResult ParseOutput() {
    StatementPtr output = MakeStatement(StatementKind::kOutput, line());
    Skip();
    CARAVAN_ASSIGN_OR_RETURN(output->value, ParseTuple(/*with_if=*/true));
    CARAVAN_RETURN_IF_ERROR(ExpectEndOfTag());
    return output;
  }

  StatementResult ParseStatement() {
    const int at = line();
    CARAVAN_ASSIGN_OR_RETURN(const std::string keyword, ExpectName());
    if (keyword == "for") return ParseFor(at);
    if (keyword == "if") return ParseIf(at);
    if (keyword == "set") return ParseSet(at);
    if (keyword == "macro") return ParseMacro(at);
    if (keyword == "call") return ParseCallBlock(at);
    if (keyword == "filter") return ParseFilterBlock(at);
    if (keyword == "with") return ParseWith(at);
    if (keyword == "generation") return ParseScope(at, "endgeneration");
    if (keyword == "autoescape") {
      CARAVAN_RETURN_IF_ERROR(ParseExpression().status());
      return ParseScope(at, "endautoescape");
    }
    if (keyword == "break") return ParseLoopControl(StatementKind::kBreak, at);
    if (keyword == "continue") {
      return ParseLoopControl(StatementKind::kContinue, at);
    }
    return ErrorAtLine(at, StrCat("unknown or misplaced tag '", keyword, "'"));
  }

  StatementResult ParseLoopControl(StatementKind kind, int at) {
    if (loops_ == 0) return ErrorAtLine(at, "break or continue outside a for");
    StatementPtr node = MakeStatement(kind, at);
    CARAVAN_RETURN_IF_ERROR(ExpectEndOfTag());
    return node;
  }

  StatementResult ParseScope(int at, std::string_view end) {
    StatementPtr node = MakeStatement(StatementKind::kScope, at);
    CARAVAN_ASSIGN_OR_RETURN(node->body, ParseBodyUntil(end));
    return node;
  }

  // name, name.attribute (where `with_attribute`), or several in a row.
  absl::StatusOr<Target> ParseTarget(bool with_attribute) {
    CARAVAN_ASSIGN_OR_RETURN(Target first, ParseOneTarget(with_attribute));
    if (!AtOperator(",")) return first;
    Target several;
    several.parts.push_back(std::move(first));
    while (SkipOperator(",")) {
      if (AtName("in") || AtOperator("=") || AtOperator(")")) break;
      CARAVAN_ASSIGN_OR_RETURN(Target next, ParseOneTarget(with_attribute));
      several.parts.push_back(std::move(next));
    }
    return several;
  }

  absl::StatusOr<Target> ParseOneTarget(bool with_attribute) {
    const Depth depth(&depth_);
    if (depth.too_deep()) return TooDeep();
    if (SkipOperator("(")) {
      CARAVAN_ASSIGN_OR_RETURN(Target inner, ParseTarget(with_attribute));
      CARAVAN_RETURN_IF_ERROR(ExpectOperator(")"));
      return inner;
    }
    Target target;
    CARAVAN_ASSIGN_OR_RETURN(target.name, ExpectName());
    if (with_attribute && SkipOperator(".")) {
      CARAVAN_ASSIGN_OR_RETURN(target.attribute, ExpectName());
    }
    return target;
  }

  StatementResult ParseFor(int at) {
    StatementPtr node = MakeStatement(StatementKind::kFor, at);
    CARAVAN_ASSIGN_OR_RETURN(node->target, ParseTarget(false));
    if (!SkipName("in")) return Expected("'in'");
    CARAVAN_ASSIGN_OR_RETURN(node->value, ParseTuple(/*with_if=*/false));
    if (SkipName("if")) {
      CARAVAN_ASSIGN_OR_RETURN(node->condition, ParseExpression());
    }
    node->recursive = SkipName("recursive");
    CARAVAN_RETURN_IF_ERROR(ExpectEndOfTag());
    ++loops_;
    CARAVAN_ASSIGN_OR_RETURN(node->body, ParseBody({"endfor", "else"}));
    --loops_;
    if (Take().text == "else") {
      CARAVAN_ASSIGN_OR_RETURN(node->otherwise, ParseBodyUntil("endfor"));
      return node;
    }
    CARAVAN_RETURN_IF_ERROR(ExpectEndOfTag());
    return node;
  }

  StatementResult ParseIf(int at) {
    StatementPtr node = MakeStatement(StatementKind::kIf, at);
    Statement* branch = node.get();
    while (true) {
      CARAVAN_ASSIGN_OR_RETURN(branch->value, ParseTuple(false));
      CARAVAN_RETURN_IF_ERROR(ExpectEndOfTag());
      CARAVAN_ASSIGN_OR_RETURN(branch->body,
                               ParseBody({"endif", "elif", "else"}));
      const Token end = Take();
      if (end.text == "elif") {
        // A chain of many branches is executed by a loop, not by recursion.
        branch->otherwise.push_back(
            MakeStatement(StatementKind::kIf, end.line));
        branch = branch->otherwise.back().get();
        if (++branches_ > 1000) return Error("has too many branches");
        continue;
      }
      if (end.text == "else") {
        CARAVAN_ASSIGN_OR_RETURN(branch->otherwise, ParseBodyUntil("endif"));
        return node;
      }
      CARAVAN_RETURN_IF_ERROR(ExpectEndOfTag());
      return node;
    }
  }

  StatementResult ParseSet(int at) {
    StatementPtr node = MakeStatement(StatementKind::kSet, at);
    CARAVAN_ASSIGN_OR_RETURN(node->target, ParseTarget(true));
    if (SkipOperator("=")) {
      CARAVAN_ASSIGN_OR_RETURN(node->value, ParseTuple(/*with_if=*/true));
      CARAVAN_RETURN_IF_ERROR(ExpectEndOfTag());
      return node;
    }
    node->kind = StatementKind::kSetBlock;
    while (AtOperator("|")) {
      const int filter_line = line();
      Skip();
      CARAVAN_ASSIGN_OR_RETURN(
          node->value, ParseFilterName(std::move(node->value), filter_line));
    }
    CARAVAN_ASSIGN_OR_RETURN(node->body, ParseBodyUntil("endset"));
    return node;
  }

  absl::Status ParseParameters(Statement* node) {
    CARAVAN_RETURN_IF_ERROR(ExpectOperator("("));
    while (!AtOperator(")")) {
      if (!node->parameters.empty()) {
        CARAVAN_RETURN_IF_ERROR(ExpectOperator(","));
      }
      Parameter parameter;
      CARAVAN_ASSIGN_OR_RETURN(parameter.name, ExpectName());
      if (SkipOperator("=")) {
        CARAVAN_ASSIGN_OR_RETURN(parameter.default_value, ParseExpression());
      }
      node->parameters.push_back(std::move(parameter));
    }
    Skip();
    return absl::OkStatus();
  }

  StatementResult ParseMacro(int at) {
    StatementPtr node = MakeStatement(StatementKind::kMacro, at);
    CARAVAN_ASSIGN_OR_RETURN(node->name, ExpectName());
    CARAVAN_RETURN_IF_ERROR(ParseParameters(node.get()));
    return ParseMacroBody(std::move(node), "endmacro");
  }

  // A loop around a macro is not a loop of its body.
  StatementResult ParseMacroBody(StatementPtr node, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    CARAVAN_ASSIGN_OR_RETURN(node->body, ParseBodyUntil(end));
    loops_ = loops;
    return node;
  }

  StatementResult ParseCallBlock(int at) {
    StatementPtr node = MakeStatement(StatementKind::kCall, at);
    node->name = "caller";
    if (AtOperator("(")) CARAVAN_RETURN_IF_ERROR(ParseParameters(node.get()));
    CARAVAN_ASSIGN_OR_RETURN(node->value, ParseExpression());
    if (node->value->kind != ExpressionKind::kCall) {
      return ErrorAtLine(at, "call needs a call");
    }
    return ParseMacroBody(std::move(node), "endcall");
  }

  StatementResult ParseFilterBlock(int at) {
    StatementPtr node = MakeStatement(StatementKind::kFilter, at);
    CARAVAN_ASSIGN_OR_RETURN(node->value, ParseFilterName(nullptr, at));
    while (AtOperator("|")) {
      const int filter_line = line();
      Skip();
      CARAVAN_ASSIGN_OR_RETURN(
          node->value, ParseFilterName(std::move(node->value), filter_line));
    }
    CARAVAN_ASSIGN_OR_RETURN(node->body, ParseBodyUntil("endfilter"));
    return node;
  }

  StatementResult ParseWith(int at) {
    StatementPtr node = MakeStatement(StatementKind::kWith, at);
    while (!AtEndOfTag()) {
      if (!node->assignments.empty()) {
        CARAVAN_RETURN_IF_ERROR(ExpectOperator(","));
      }
      CARAVAN_ASSIGN_OR_RETURN(Target target, ParseOneTarget(false));
      CARAVAN_RETURN_IF_ERROR(ExpectOperator("="));
      CARAVAN_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      node->assignments.emplace_back(std::move(target), std::move(value));
    }
    CARAVAN_ASSIGN_OR_RETURN(node->body, ParseBodyUntil("endwith"));
    return node;
  }

  int loops_ = 0;
  int branches_ = 0;
};

}  // namespace

absl::StatusOr<Body> ParseTemplate(std::string_view source) {
  CARAVAN_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Parse();
}

}  // namespace caravan::jinja
