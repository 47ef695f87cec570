// A parsed template.
#ifndef CARAVAN_SERVICES_TOKENIZER_JINJA_AST_H_
#define CARAVAN_SERVICES_TOKENIZER_JINJA_AST_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/tokenizer/jinja/value.h"

namespace caravan::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class ExpressionKind {
  kLiteral,      // `literal`
  kName,         // `name`
  kList,         // children
  kTuple,        // children
  kDict,         // children: key, value, key, value, ...
  kAttribute,    // child.name
  kItem,         // child[child]
  kSlice,        // child[child:child:child]; the last three may be null
  kCall,         // child(children..., named...)
  kFilter,       // child | name(children..., named...)
  kTest,         // child is name(children..., named...)
  kNot,          // not child
  kNegative,     // -child
  kPositive,     // +child
  kBinary,       // child name child; name is the operator
  kConcat,       // child ~ child ~ ...
  kAnd,          // child and child
  kOr,           // child or child
  kCompare,      // child op child op ...; operators
  kConditional,  // child[1] if child[0] else child[2], which may be null
};

struct Expression {
  ExpressionKind kind;
  int line;
  std::string name;
  Value literal;
  std::vector<ExpressionPtr> children;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<std::string> operators;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

// What an assignment writes to: a name, ns.attribute, or several of them.
struct Target {
  std::string name;
  std::string attribute;      // empty unless ns.attribute
  std::vector<Target> parts;  // not empty: unpacks
};

struct Parameter {
  std::string name;
  ExpressionPtr default_value;  // may be null
};

enum class StatementKind {
  kData,      // text
  kOutput,    // {{ value }}
  kFor,       // target in value if condition; body, otherwise; recursive
  kIf,        // condition: value; body, otherwise (elif: one kIf in it)
  kSet,       // target = value
  kSetBlock,  // target = body, through the filters in value (or null)
  kMacro,     // name(parameters): body
  kCall,      // value is the call; body is what caller(parameters) gives
  kFilter,    // body through the filters in value
  kWith,      // assignments, then body in a scope of its own
  kScope,     // body (generation and autoescape mean nothing here)
  kBreak,
  kContinue,
};

struct Statement {
  StatementKind kind;
  int line;
  Text text;
  std::string name;
  Target target;
  ExpressionPtr value;
  ExpressionPtr condition;
  std::vector<Parameter> parameters;
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
  Body body;
  Body otherwise;
  bool recursive = false;
};

}  // namespace caravan::jinja

#endif  // CARAVAN_SERVICES_TOKENIZER_JINJA_AST_H_
