#pragma once

#include <memory>
#include <string>

namespace bitnet::cli {

// Lines from the user: with editing and a history that is kept between sessions on a terminal, plain otherwise.
class LineReader {
 public:
  enum class Event { kLine, kEnd, kInterrupt };

  LineReader();
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  bool interactive() const;
  // One line without its newline. kInterrupt: Ctrl-C was pressed instead.
  Event read(const char* prompt, std::string* line);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One message of possibly several lines: a line that ends in a backslash goes on, """ opens a block that ends with """.
LineReader::Event read_message(LineReader& reader, std::string* message);

}  // namespace bitnet::cli
