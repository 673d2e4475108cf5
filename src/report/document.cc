#include "report/document.h"

#include "report/page.h"

#include <fmt/format.h>

#include <algorithm>

namespace bitnet {
namespace {

std::string table_html(const ReportTable& table) {
  std::string html = "<div class=\"card\"><table>\n";
  const std::vector<std::string>& heading = table.rows.front();
  const bool headed =
      std::any_of(heading.begin(), heading.end(), [](const std::string& word) { return !word.empty(); });
  for (size_t r = headed ? 0 : 1; r < table.rows.size(); ++r) {
    html += "<tr>";
    for (size_t c = 0; c < table.rows[r].size(); ++c) {
      // A table of words alone is one of facts: its last column may be long.
      const bool long_text = r > 0 && c > 0 && c + 1 == table.n_words && table.n_words == heading.size();
      html += fmt::format("<{0}{1}>{2}</{0}>", r == 0 ? "th" : "td",
                          long_text           ? " class=\"text\""
                          : c < table.n_words ? " class=\"word\""
                                              : "",
                          escaped_html(table.rows[r][c]));
    }
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

std::string section_html(const ReportSection& section) {
  std::string html = "<h2>" + escaped_html(section.title) + "</h2>\n";
  for (const std::string& paragraph : section.paragraphs) html += "<p>" + escaped_html(paragraph) + "</p>\n";
  if (!section.figures.empty()) {
    html += "<div class=\"charts flow\">\n";
    for (const ReportFigure& figure : section.figures) html += figure_html(figure.title, figure.note, "", figure.svg);
    html += "</div>\n";
  }
  if (!section.table.empty()) html += table_html(section.table);
  if (!section.code.empty()) html += "<div class=\"card\"><pre>" + escaped_html(section.code) + "</pre></div>\n";
  return html;
}

// Plain text in which nothing is taken for Markdown or HTML.
std::string escaped_markdown(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '\n': out += ' '; break;
      case '\\':
      case '`':
      case '*':
      case '_':
      case '[':
      case ']':
      case '|': out += '\\'; [[fallthrough]];
      default: out += c;
    }
  }
  return out;
}

std::string table_markdown(const ReportTable& table) {
  std::string text;
  for (size_t r = 0; r < table.rows.size(); ++r) {
    for (const std::string& cell : table.rows[r]) text += "| " + escaped_markdown(cell) + " ";
    text += "|\n";
    for (size_t c = 0; r == 0 && c < table.rows[0].size(); ++c) text += c < table.n_words ? "|---" : "|---:";
    if (r == 0) text += "|\n";
  }
  return text + "\n";
}

std::string section_markdown(const ReportSection& section) {
  std::string text = "## " + escaped_markdown(section.title) + "\n\n";
  for (const std::string& paragraph : section.paragraphs) text += escaped_markdown(paragraph) + "\n\n";
  for (const ReportFigure& figure : section.figures) {
    text += fmt::format("**{}**{}{}\n\n<img alt=\"\" width=\"480\" src=\"{}\">\n\n", escaped_markdown(figure.title),
                        figure.note.empty() ? "" : ", ", escaped_markdown(figure.note), svg_data_address(figure.svg));
  }
  if (!section.table.empty()) text += table_markdown(section.table);
  if (section.code.empty()) return text;
  for (size_t begin = 0; begin < section.code.size();) {  // indented: no fence that the text could close
    const size_t end = std::min(section.code.find('\n', begin), section.code.size());
    text += "    " + section.code.substr(begin, end - begin) + "\n";
    begin = end + 1;
  }
  return text + "\n";
}

}  // namespace

std::string document_html(const ReportDocument& document) {
  std::string body = "<div class=\"soft\">" + escaped_html(document.subtitle) + "</div>\n";
  if (!document.tiles.empty()) {
    body += "<div class=\"tiles\">\n";
    for (const ReportTile& tile : document.tiles) body += tile_html(tile.value, tile.label, tile.note);
    body += "</div>\n";
  }
  for (const ReportSection& section : document.sections) body += section_html(section);
  return page_html(document.title, body);
}

std::string document_markdown(const ReportDocument& document) {
  std::string text = "# " + escaped_markdown(document.title) + "\n\n" + escaped_markdown(document.subtitle) + "\n\n";
  for (const ReportTile& tile : document.tiles) {
    text += fmt::format("- {}: **{}** {}\n", escaped_markdown(tile.label), escaped_markdown(tile.value),
                        escaped_markdown(tile.note));
  }
  if (!document.tiles.empty()) text += "\n";
  for (const ReportSection& section : document.sections) text += section_markdown(section);
  text.pop_back();  // one line ends the file
  return text;
}

}  // namespace bitnet
