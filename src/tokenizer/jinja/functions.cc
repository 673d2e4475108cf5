// The functions that a template can call.

#include "tokenizer/jinja/builtins.h"

#include <algorithm>
#include <ctime>

namespace bitnet::jinja {

namespace {

Result<Value> call_range(Run& run, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "range", arguments, {"start", "stop", "step"}, 1));
  int64_t parts[3] = {0, 0, 1};
  for (size_t i = 0; i < 3; ++i) {
    if (!bound.has(i)) continue;
    BN_ASSIGN_OR_RETURN(parts[i], int_argument(run, "range", bound[i]));
  }
  const int64_t start = bound.has(1) ? parts[0] : 0;
  const int64_t stop = bound.has(1) ? parts[1] : parts[0];
  const int64_t step = parts[2];
  if (step == 0) return run.error("the step of range() is zero");
  if ((step > 0) == (start >= stop) && start != stop) return run.list({});
  const uint64_t distance = step > 0 ? uint64_t(stop) - uint64_t(start) : uint64_t(start) - uint64_t(stop);
  const uint64_t stride = step > 0 ? uint64_t(step) : uint64_t(0) - uint64_t(step);
  const uint64_t n = distance / stride + (distance % stride != 0);
  BN_RETURN_IF_ERROR(run.charge(n));
  std::vector<Value> items;
  items.reserve(n);
  for (uint64_t k = 0; k < n; ++k) items.push_back(Value::integer(int64_t(uint64_t(start) + k * uint64_t(step))));
  return run.list(std::move(items));
}

// Where namespace() and dict() take their initial values from: a dict, then named arguments.
Result<std::vector<std::pair<Value, Value>>> initial_items(Run& run, std::string_view callee,
                                                           const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  if (arguments.positional.size() > 1) return run.error("'{}' takes one dict and named arguments", callee);
  for (const Value& value : arguments.positional) {
    const Dict* dict = value.if_dict();
    if (!dict) return run.error("'{}' needs a dict, not a {}", callee, value.type_name());
    items = dict->items;
  }
  for (const auto& [name, value] : arguments.named) items.emplace_back(Value::text(name), value);
  BN_RETURN_IF_ERROR(run.charge(items.size()));
  return items;
}

Result<Value> call_namespace(Run& run, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(auto items, initial_items(run, "namespace", arguments));
  const auto ns = std::make_shared<Namespace>();
  for (auto& [key, value] : items) {
    BN_ASSIGN_OR_RETURN(const Text name, to_text(run, key));
    BN_RETURN_IF_ERROR(set_attribute(run, *ns, name.bytes(), std::move(value)));
  }
  return Value::of(std::shared_ptr<Namespace>(ns));
}

Result<Value> call_dict(Run& run, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(auto items, initial_items(run, "dict", arguments));
  return run.dict(std::move(items));
}

Result<Value> call_raise_exception(Run& run, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "raise_exception", arguments, {"message"}, 1));
  BN_ASSIGN_OR_RETURN(const Text message, to_text(run, bound[0]));
  return run.fail(message.bytes());
}

// The clock in the local time zone. Each directive on its own, so that no format makes strftime write without bound.
Result<Value> call_strftime_now(Run& run, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "strftime_now", arguments, {"format"}, 1));
  BN_ASSIGN_OR_RETURN(const Text* format, text_argument(run, "strftime_now", bound[0]));
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  if (!localtime_r(&now, &local)) return run.error("the clock has no local time");
  const std::string& f = format->bytes();
  Text out;
  for (size_t i = 0; i < f.size(); ++i) {
    if (f[i] != '%') {
      BN_RETURN_IF_ERROR(run.append(out, *format, i, i + 1));
      continue;
    }
    const bool has_flag = i + 1 < f.size() && f[i + 1] == '-';
    i += 1 + has_flag;
    if (i >= f.size() || std::string_view("aAbBcdFHIjmMpSTUwWxXyYzZ%").find(f[i]) == std::string_view::npos) {
      return run.error("strftime_now does not know this directive of '{}'", f.substr(0, 80));
    }
    char text[128];
    const char directive[] = {'%', has_flag ? '-' : f[i], has_flag ? f[i] : '\0', '\0'};
    BN_RETURN_IF_ERROR(run.charge(8));
    BN_RETURN_IF_ERROR(run.append(out, std::string_view(text, std::strftime(text, sizeof(text), directive, &local))));
  }
  return Value::text(std::move(out));
}

}  // namespace

const Builtin* find_builtin(std::string_view name) {
  static constexpr Builtin kBuiltins[] = {{"range", call_range},
                                          {"namespace", call_namespace},
                                          {"dict", call_dict},
                                          {"raise_exception", call_raise_exception},
                                          {"strftime_now", call_strftime_now}};
  const auto* found =
      std::find_if(std::begin(kBuiltins), std::end(kBuiltins), [name](const Builtin& b) { return b.name == name; });
  return found != std::end(kBuiltins) ? found : nullptr;
}

}  // namespace bitnet::jinja
