#pragma once

#include "tokenizer/jinja/builtins.h"
#include "tokenizer/jinja/value.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace bitnet::jinja {

enum class ExprKind : uint8_t {
  kConstant,
  kName,
  kList,
  kTuple,
  kDict,       // args: key, value, key, value...
  kAttribute,  // args[0].name; `constant` is the name as a key
  kItem,       // args[0][args[1]]
  kSlice,      // args[0][args[1]:args[2]:args[3]], null where left out
  kCall,       // args[0](args[1..], named)
  kFilter,     // args[0] | filter(args[1..], named); args[0] is null for the text of a block
  kTest,       // args[0] is test(args[1..], named)
  kNegate,
  kPlus,
  kNot,
  kArithmetic,  // args[0] op args[1]
  kConcat,      // args[0] ~ args[1] ~ ...
  kCompare,     // args[0] ops[0] args[1] ops[1] ...
  kAnd,
  kOr,
  kConditional,  // args[0] if args[1] else args[2], null where left out
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  int line = 1;
  int depth = 1;  // of the tree below, itself included
  std::string name;
  Value constant;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<Op> ops;
  const Filter* filter = nullptr;
  const Test* test = nullptr;
};

enum class StmtKind : uint8_t {
  kText,
  kPrint,
  kIf,        // branches; an else is a branch without condition
  kFor,       // targets in iterable [if condition]: body, else orelse
  kSet,       // targets = value
  kSetBlock,  // targets[0] = the text of body, through filters
  kMacro,
  kScope,  // generation and with: names set inside end inside
  kFilterBlock,
  kBreak,
  kContinue,
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

// A name, or an attribute of a namespace.
struct Target {
  std::string name;
  std::string attribute;
};

struct Branch {
  ExprPtr condition;
  Body body;
};

struct Macro {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Body body;
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  int line = 1;
  std::string text;
  ExprPtr value;      // kPrint, kSet; the filters of kSetBlock and kFilterBlock; the iterable of kFor
  ExprPtr condition;  // kFor
  std::vector<Target> targets;
  bool unpacks = false;                                      // targets are a tuple
  std::vector<std::pair<std::string, ExprPtr>> assignments;  // kScope
  std::vector<Branch> branches;
  Body body;
  Body orelse;
  std::unique_ptr<Macro> macro;
};

struct Template {
  std::string name;
  Body body;
};

}  // namespace bitnet::jinja
