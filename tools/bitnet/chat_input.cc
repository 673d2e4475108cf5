#include "chat_input.h"

#include "interrupt.h"

#ifdef BITNET_HAVE_LIBEDIT
#include <histedit.h>
#endif
#include <sys/stat.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <filesystem>

namespace bitnet::cli {
namespace {

constexpr const char* kPrompt = "> ";
constexpr const char* kContinuation = "... ";

#ifdef BITNET_HAVE_LIBEDIT
constexpr int kHistoryLines = 1000;

// $XDG_STATE_HOME/bitnet/history, its folder made; empty where there is no home.
std::string history_path() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path folder;
  if (state != nullptr && state[0] == '/') {
    folder = state;
  } else if (home != nullptr && home[0] == '/') {
    folder = std::filesystem::path(home) / ".local" / "state";
  } else {
    return "";
  }
  folder /= "bitnet";
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  return failure ? "" : (folder / "history").string();
}
#endif

}  // namespace

struct LineReader::Impl {
  bool terminal = ::isatty(STDIN_FILENO) != 0 && ::isatty(STDOUT_FILENO) != 0;
  std::string pending;  // bytes read beyond the last line, of a plain input
  bool at_end = false;
#ifdef BITNET_HAVE_LIBEDIT
  EditLine* editor = nullptr;
  History* history = nullptr;
  std::string path;
  const char* prompt = "";
  bool was_interrupted = false;

  static Impl& of(EditLine* e) {
    void* self = nullptr;
    el_get(e, EL_CLIENTDATA, &self);
    return *static_cast<Impl*>(self);
  }

  // libedit's own reader goes on after the first signal; this one tells.
  static int get_char(EditLine* e, wchar_t* out) {
    std::mbstate_t state{};
    while (true) {
      if (!wait_for_input(STDIN_FILENO)) {
        of(e).was_interrupted = true;
        return -1;
      }
      char byte = 0;
      if (::read(STDIN_FILENO, &byte, 1) <= 0) return 0;
      const size_t length = std::mbrtowc(out, &byte, 1, &state);
      if (length == size_t(-2)) continue;
      if (length == size_t(-1)) *out = L'?';
      return 1;
    }
  }

  void start_editor() {
    std::setlocale(LC_CTYPE, "");
    editor = el_init("bitnet", stdin, stdout, stderr);
    history = history_init();
    if (editor == nullptr || history == nullptr) return;
    HistEvent event;
    ::history(history, &event, H_SETSIZE, kHistoryLines);
    ::history(history, &event, H_SETUNIQUE, 1);
    path = history_path();
    if (!path.empty()) ::history(history, &event, H_LOAD, path.c_str());
    el_set(editor, EL_CLIENTDATA, this);
    el_set(
        editor, EL_PROMPT, +[](EditLine* e) { return const_cast<char*>(of(e).prompt); });
    el_set(editor, EL_GETCFN, &get_char);
    el_set(editor, EL_EDITOR, "emacs");
    el_set(editor, EL_HIST, ::history, history);
    el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    el_source(editor, nullptr);
  }

  void stop_editor() {
    if (history != nullptr) {
      if (!path.empty()) {
        const mode_t mask = ::umask(077);  // what people type is theirs alone
        HistEvent event;
        ::history(history, &event, H_SAVE, path.c_str());
        ::umask(mask);
      }
      history_end(history);
    }
    if (editor != nullptr) el_end(editor);
  }

  Event read_edited(std::string* line) {
    int n = 0;
    was_interrupted = false;
    const char* text = el_gets(editor, &n);
    if (was_interrupted) {
      el_reset(editor);
      return Event::kInterrupt;
    }
    if (text == nullptr || n <= 0) return Event::kEnd;
    line->assign(text, size_t(n));
    while (!line->empty() && (line->back() == '\n' || line->back() == '\r')) line->pop_back();
    HistEvent event;
    if (!line->empty()) ::history(history, &event, H_ENTER, line->c_str());
    return Event::kLine;
  }
#endif

  Event read_plain(std::string* line) {
    while (true) {
      const size_t newline = pending.find('\n');
      if (newline != std::string::npos || (at_end && !pending.empty())) {
        *line = pending.substr(0, newline);
        pending.erase(0, newline == std::string::npos ? pending.size() : newline + 1);
        if (!line->empty() && line->back() == '\r') line->pop_back();
        return Event::kLine;
      }
      if (at_end) return Event::kEnd;
      if (!wait_for_input(STDIN_FILENO)) return Event::kInterrupt;
      char bytes[4096];
      const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
      if (n <= 0) at_end = true;
      if (n > 0) pending.append(bytes, size_t(n));
    }
  }
};

LineReader::LineReader() : impl_(std::make_unique<Impl>()) {
#ifdef BITNET_HAVE_LIBEDIT
  if (impl_->terminal) impl_->start_editor();
#endif
}
LineReader::~LineReader() {
#ifdef BITNET_HAVE_LIBEDIT
  impl_->stop_editor();
#endif
}

bool LineReader::interactive() const { return impl_->terminal; }

LineReader::Event LineReader::read(const char* prompt, std::string* line) {
#ifdef BITNET_HAVE_LIBEDIT
  if (impl_->editor != nullptr && impl_->history != nullptr) {
    impl_->prompt = prompt;
    return impl_->read_edited(line);
  }
#endif
  if (impl_->terminal) {
    std::fputs(prompt, stdout);
    std::fflush(stdout);
  }
  return impl_->read_plain(line);
}

LineReader::Event read_message(LineReader& reader, std::string* message) {
  constexpr const char* kFence = "\"\"\"";
  std::string line;
  LineReader::Event event = reader.read(kPrompt, &line);
  if (event != LineReader::Event::kLine) return event;
  message->clear();
  if (line.rfind(kFence, 0) == 0) {
    std::string rest = line.substr(std::strlen(kFence));
    while (true) {
      const size_t end = rest.rfind(kFence);
      if (end != std::string::npos && end + std::strlen(kFence) == rest.size()) {
        *message += rest.substr(0, end);
        if (!message->empty() && message->back() == '\n') message->pop_back();
        return LineReader::Event::kLine;
      }
      if (!message->empty() || !rest.empty()) *message += rest + "\n";
      event = reader.read(kContinuation, &rest);
      if (event == LineReader::Event::kInterrupt) return event;
      if (event == LineReader::Event::kEnd) return LineReader::Event::kLine;  // the block ends with the input
    }
  }
  while (!line.empty() && line.back() == '\\') {
    line.pop_back();
    *message += line + "\n";
    line.clear();
    event = reader.read(kContinuation, &line);
    if (event == LineReader::Event::kInterrupt) return event;
    if (event == LineReader::Event::kEnd) break;
  }
  *message += line;
  return LineReader::Event::kLine;
}

}  // namespace bitnet::cli
