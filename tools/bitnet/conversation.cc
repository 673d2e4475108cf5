#include "conversation.h"

#include "base/file.h"
#include "format/json.h"
#include "output.h"

namespace bitnet::cli {

Status save_conversation(const std::string& path, const std::string& model, const std::vector<ChatMessage>& messages) {
  OrderedJson list = OrderedJson::array();
  for (const ChatMessage& message : messages) list.push_back({{"role", message.role}, {"content", message.content}});
  const OrderedJson document = {{"format", "bitnet-chat"}, {"version", 1}, {"model", model}, {"messages", list}};
  return write_file_atomically(path, document.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
}

Result<std::vector<ChatMessage>> load_conversation(const std::string& path) {
  BN_ASSIGN_OR_RETURN(const std::string text, read_file(path, uint64_t{64} << 20));
  BN_ASSIGN_OR_RETURN(const Json document, parse_json(text, path));
  if (!document.is_object() || document.value("format", Json()) != "bitnet-chat") {
    return invalid_input("{}: not a conversation that /save wrote: \"format\" is not \"bitnet-chat\"", path);
  }
  const auto list = document.find("messages");
  if (list == document.end() || !list->is_array()) return invalid_input("{}: \"messages\" is not an array", path);
  std::vector<ChatMessage> messages;
  for (const Json& entry : *list) {
    const std::string where = fmt::format("{}: message {}", path, messages.size());
    if (!entry.is_object()) return invalid_input("{}: expected an object with \"role\" and \"content\"", where);
    ChatMessage message;
    BN_ASSIGN_OR_RETURN(message.role, json_string(entry, "role", where));
    BN_ASSIGN_OR_RETURN(message.content, json_string(entry, "content", where));
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      return invalid_input("{}: \"role\" is \"{}\", expected system, user or assistant", where, message.role);
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

}  // namespace bitnet::cli
