#pragma once

#include "base/result.h"
#include "cli.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet::cli {

using OrderedJson = nlohmann::ordered_json;  // keys in the order they were set

// Everything on stdout goes through these two; close_stdout() then tells whether all of it arrived.
void print(std::string_view text);
void print_json(const OrderedJson& document);  // bytes that are not UTF-8 become U+FFFD
std::string quoted_json(std::string_view text);
// Flushes; an error when the disk is full or the reader gone. Also shows text that was held back.
Status close_stdout();
void flush_stdout();

// "bitnet run: message", its context and "Try: suggestion" on stderr; with `json` the error document on stdout.
void print_error(const std::string& command, bool json, const Error& error);
// "bitnet run: note: message" on stderr.
void print_note(const Invocation& invocation, const std::string& message);
// A plain line on stderr: statistics and reports beside the real output.
void print_report(const std::string& line);

std::string human_bytes(uint64_t bytes);    // "1.19 GB", powers of ten
std::string human_count(uint64_t count);    // "2.41 billion", "29.4 million", "8192"
std::string human_rate(double per_second);  // "34.5", "1240": three digits that matter
// Text with control characters, quotes and bytes that are not UTF-8 as \n, \" and \xNN: one line, unambiguous.
std::string escaped(std::string_view text);

// Rows of cells as aligned columns, the first row a heading; numbers to the right.
std::string table(const std::vector<std::vector<std::string>>& rows);

}  // namespace bitnet::cli
