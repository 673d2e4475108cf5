// Statements.

#include "tokenizer/jinja/evaluator.h"

namespace bitnet::jinja {

Result<Text> render(const Template& parsed, Run& run, const Variables& variables) {
  Text out;
  Evaluator evaluator(run, out);
  for (const auto& [name, value] : variables) evaluator.define(name, value);
  BN_RETURN_IF_ERROR(evaluator.execute(parsed.body));
  return out;
}

Result<Evaluator::Flow> Evaluator::execute(const Body& body) {
  for (const auto& statement : body) {
    BN_RETURN_IF_ERROR(run_.charge(1));
    if (depth_ >= kMaxEvalDepth) return run_.error("more than {} operations within each other", kMaxEvalDepth);
    run_.line = statement->line;
    ++depth_;
    BN_ASSIGN_OR_RETURN(const Flow flow, execute(*statement));
    --depth_;
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Result<Evaluator::Flow> Evaluator::execute(const Stmt& s) {
  switch (s.kind) {
    case StmtKind::kText: BN_RETURN_IF_ERROR(run_.append(*out_, s.text)); return Flow::kNext;
    case StmtKind::kPrint: BN_RETURN_IF_ERROR(execute_print(s)); return Flow::kNext;
    case StmtKind::kIf: return execute_if(s);
    case StmtKind::kFor: return execute_for(s);
    case StmtKind::kSet:
    case StmtKind::kSetBlock: BN_RETURN_IF_ERROR(execute_set(s)); return Flow::kNext;
    case StmtKind::kMacro:
      define(s.macro->name, Value::of(static_cast<const Macro*>(s.macro.get())));
      return Flow::kNext;
    case StmtKind::kScope: return execute_scope(s);
    case StmtKind::kFilterBlock: BN_RETURN_IF_ERROR(execute_filter_block(s)); return Flow::kNext;
    case StmtKind::kBreak: return Flow::kBreak;
    case StmtKind::kContinue: return Flow::kContinue;
  }
  return Flow::kNext;
}

Status Evaluator::execute_print(const Stmt& s) {
  BN_ASSIGN_OR_RETURN(const Value value, eval(*s.value));
  return append_str(run_, *out_, value);
}

Result<Evaluator::Flow> Evaluator::execute_if(const Stmt& s) {
  for (const Branch& branch : s.branches) {
    if (branch.condition) {
      BN_ASSIGN_OR_RETURN(const Value condition, eval(*branch.condition));
      if (!condition.truthy()) continue;
    }
    return execute(branch.body);
  }
  return Flow::kNext;
}

// The items that the inline `if` lets through.
Result<std::shared_ptr<const List>> Evaluator::loop_items(const Stmt& s) {
  BN_ASSIGN_OR_RETURN(const Value iterable, eval(*s.value));
  run_.line = s.line;
  BN_ASSIGN_OR_RETURN(auto items, iterate(run_, iterable));
  if (!s.condition) return items;
  std::vector<Value> chosen;
  scopes_.emplace_back();
  for (const Value& item : items->items) {
    scopes_.back().clear();
    BN_RETURN_IF_ERROR(assign(s.targets, s.unpacks, item));
    BN_ASSIGN_OR_RETURN(const Value condition, eval(*s.condition));
    if (condition.truthy()) chosen.push_back(item);
  }
  scopes_.pop_back();
  BN_ASSIGN_OR_RETURN(const Value list, run_.list(std::move(chosen)));
  return list.list_pointer();
}

Result<Evaluator::Flow> Evaluator::execute_for(const Stmt& s) {
  BN_ASSIGN_OR_RETURN(const auto items, loop_items(s));
  if (items->items.empty()) return execute(s.orelse);
  const auto loop = std::make_shared<Loop>();
  loop->items = items;
  scopes_.emplace_back();
  for (; loop->index < items->items.size(); ++loop->index) {
    BN_RETURN_IF_ERROR(run_.charge(1));
    scopes_.back().clear();
    run_.line = s.line;
    define("loop", Value::of(std::shared_ptr<const Loop>(loop)));
    BN_RETURN_IF_ERROR(assign(s.targets, s.unpacks, items->items[loop->index]));
    BN_ASSIGN_OR_RETURN(const Flow flow, execute(s.body));
    if (flow == Flow::kBreak) break;
  }
  scopes_.pop_back();
  return Flow::kNext;
}

Result<Evaluator::Flow> Evaluator::execute_scope(const Stmt& s) {
  Scope scope;
  for (const auto& [name, expression] : s.assignments) {
    BN_ASSIGN_OR_RETURN(scope[name], eval(*expression));
  }
  scopes_.push_back(std::move(scope));
  BN_ASSIGN_OR_RETURN(const Flow flow, execute(s.body));
  scopes_.pop_back();
  return flow;
}

Result<Value> Evaluator::block_text(const Body& body, const Expr* filters) {
  Text text;
  Text* const outer = std::exchange(out_, &text);
  scopes_.emplace_back();
  BN_RETURN_IF_ERROR(execute(body));
  scopes_.pop_back();
  out_ = outer;
  Value value = Value::text(std::move(text));
  if (!filters) return value;
  block_text_ = std::move(value);
  return eval(*filters);
}

Status Evaluator::execute_filter_block(const Stmt& s) {
  BN_ASSIGN_OR_RETURN(const Value value, block_text(s.body, s.value.get()));
  return append_str(run_, *out_, value);
}

Status Evaluator::execute_set(const Stmt& s) {
  Value value;
  if (s.kind == StmtKind::kSetBlock) {
    BN_ASSIGN_OR_RETURN(value, block_text(s.body, s.value.get()));
  } else {
    BN_ASSIGN_OR_RETURN(value, eval(*s.value));
  }
  run_.line = s.line;
  return assign(s.targets, s.unpacks, std::move(value));
}

Status Evaluator::assign(const std::vector<Target>& targets, bool unpacks, Value value) {
  if (!unpacks) {
    if (!targets[0].attribute.empty()) return assign_attribute(targets[0], std::move(value));
    define(targets[0].name, std::move(value));
    return ok();
  }
  BN_ASSIGN_OR_RETURN(const auto items, iterate(run_, value));
  if (items->items.size() != targets.size()) {
    return run_.error("{} values for {} names", items->items.size(), targets.size());
  }
  BN_RETURN_IF_ERROR(run_.charge(targets.size()));
  for (size_t i = 0; i < targets.size(); ++i) define(targets[i].name, items->items[i]);
  return ok();
}

Status Evaluator::assign_attribute(const Target& target, Value value) {
  BN_ASSIGN_OR_RETURN(const Value object, lookup(target.name));
  Namespace* ns = object.if_namespace();
  if (!ns) return run_.error("'{}' is no namespace, its attributes cannot be set", target.name);
  return set_attribute(run_, *ns, target.attribute, std::move(value));
}

}  // namespace bitnet::jinja
